"""Lists of trials as others publish them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from etaflow.manifest import first_names
from etaflow.trials.table import COLUMNS, TrialsError, speakers_of

LABELS = {"1": 1, "0": 0, "target": 1, "nontarget": 0}
FORMATS = (
    "LABEL NAME NAME (VoxCeleb, Kathbath) or NAME NAME LABEL (Kaldi), the label 1 or 0, target or "
    "nontarget, or a table with the columns enrolment, test and target"
)


def _components(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _without_suffix(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    # Of `take.7` the number is part of the name: `take.wav` is another recording.
    return folder + slash + stem if dot and stem and not suffix.isdigit() else name


class _Names:
    """Finds the utterance that a name of a list means."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.ids = set(table["utterance_id"])
        self.paths = [
            (name, _components(path))
            for name, path in zip(table["utterance_id"], table["path"], strict=True)
        ]
        self.ends: dict[int, dict[str, list[str]]] = {}

    def _ends(self, depth: int) -> dict[str, list[str]]:
        """Utterances by the last components of their paths, with and without suffix."""
        if depth not in self.ends:
            found: dict[str, list[str]] = {}
            for name, components in self.paths:
                end = "/".join(components[-depth:])
                for key in {end, _without_suffix(end)}:
                    found.setdefault(key, []).append(name)
            self.ends[depth] = found
        return self.ends[depth]

    def find(self, name: str) -> list[str]:
        """The utterance of this id; else those whose path ends in it, whatever the suffix."""
        if name in self.ids:
            return [name]
        components = _components(name)
        end = "/".join(components)
        ends = self._ends(len(components))
        return ends.get(end) or ends.get(_without_suffix(end), [])


def _fields(line: str, separator: str | None) -> list[str]:
    return [field.strip() for field in line.split(separator)]


def _parsed(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Line number, both names and the label of each trial."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise TrialsError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    places: tuple[int, int, int] | None = None  # of the names and the label
    separator: str | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if places is None:
            separator = "\t" if "\t" in line else None
            places = _places(_fields(line, separator))
            if places is None:
                raise TrialsError(f"{path}, line {number}: {line!r} is not {FORMATS}")
            if set(_fields(line, separator)) == set(COLUMNS):
                continue
        fields = _fields(line, separator)
        label = LABELS.get(fields[places[2]]) if len(fields) == 3 else None
        if label is None:
            raise TrialsError(f"{path}, line {number}: {line!r} is not as the lines before it")
        yield number, fields[places[0]], fields[places[1]], label


def _places(fields: list[str]) -> tuple[int, int, int] | None:
    """Where enrolment, test and label stand in lines like this; None if that cannot be said."""
    if len(fields) != 3:
        return None
    if set(fields) == set(COLUMNS):
        return fields.index(COLUMNS[0]), fields.index(COLUMNS[1]), fields.index(COLUMNS[2])
    labels = [field in LABELS for field in fields]
    if labels[0] == labels[2]:
        return None
    return (1, 2, 0) if labels[0] else (0, 1, 2)


def read_trials(
    path: str | Path, table: pd.DataFrame, missing: Literal["error", "exclude"] = "error"
) -> tuple[pd.DataFrame, list[str], int]:
    """Read a list of trials of recordings that a manifest lists.

    Lines are `LABEL NAME NAME` (VoxCeleb; Kathbath, github.com/AI4Bharat/IndicSUPERB) or
    `NAME NAME LABEL` (Kaldi), parted by tabs or spaces; the label is 1 or 0, `target` or
    `nontarget`. Or a table with the header `enrolment test target`. A name is an utterance id, or
    the last part of the path of a recording: whole names of folders and file, in which the suffix
    may be another or be left out.

    Args:
        path: of the list.
        table: a manifest.
        missing: whether names that the manifest does not have are an error, or their trials are
            left out.

    Returns:
        The columns `enrolment`, `test`, `target`, in the order of the list; the names that the
        manifest does not have; and how many trials are left out for them.

    Raises:
        TrialsError: a line has another format or a name means several recordings (with the line's
            number), recordings are missing, no trial is left, or a label says otherwise than the
            manifest whether the speaker is the same.
    """
    path = Path(path)
    parsed = list(_parsed(path))
    if not parsed:
        raise TrialsError(f"{path}: has no trials")
    names = _Names(table)
    known: dict[str, str] = {}
    missed: dict[str, None] = {}
    for number, one, other, _ in parsed:
        for name in (one, other):
            if name in known or name in missed:
                continue
            found = names.find(name)
            if len(found) > 1:
                raise TrialsError(
                    f"{path}, line {number}: {name} means {len(found)} recordings: "
                    f"{first_names(found)}; write more of its path"
                )
            if found:
                known[name] = found[0]
            else:
                missed[name] = None
    absent = list(missed)
    if absent and missing == "error":
        raise TrialsError(
            f"{path}: {len(absent)} of {len(absent) + len(known)} recording(s) are not in the "
            f"manifest: {first_names(absent)}"
        )
    rows = [row for row in parsed if row[1] in known and row[2] in known]
    if not rows:
        raise TrialsError(
            f"{path}: no trial is left, {len(absent)} recording(s) are not in the manifest: "
            f"{first_names(absent)}"
        )
    trials = pd.DataFrame(
        [(known[one], known[other], label) for _, one, other, label in rows], columns=COLUMNS
    )
    speakers = speakers_of(trials, table)
    wrong = np.flatnonzero((speakers[:, 0] == speakers[:, 1]) != (trials["target"] == 1))
    if len(wrong):
        number, one, other, label = rows[wrong[0]]
        raise TrialsError(
            f"{path}, line {number}: label {label}, but {one} and {other} are of "
            f"{' and '.join(sorted(set(speakers[wrong[0]])))} in the manifest; so with "
            f"{len(wrong)} of {len(trials)} trials"
        )
    return trials, absent, len(parsed) - len(rows)

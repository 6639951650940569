"""Files of many mixtures, made once and checked from then on."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from etaflow.audio import file_checksum
from etaflow.progress import progress
from etaflow.separation.mixing import Kind, Mode, Roots, mix_row, speakers_per_mixture


def write_mixtures(
    table: pd.DataFrame,
    roots: Roots,
    folder: str | Path,
    journal: str | Path,
    sample_rate: int = 8_000,
    mode: Mode = "min",
    kind: Kind = "clean",
    suffix: str = ".wav",
    key: str = "",
) -> pd.DataFrame:
    """Write the mixtures of a metadata table and their parts, those that are not there yet.

    The journal has a line for each mixture that is there, with what it was made of and the
    checksums of its files. A mixture is left as it is if its line is of the same row, settings,
    key and recordings (by size and time), and its files are as they were written; else it is made
    again. Whoever was killed goes on with the mixture it was at.

    Args:
        table: as `read_metadata` reads it.
        roots: where its paths start.
        folder: for `s1`, `s2`, …, `noise` and `mix_KIND`, of one rate and mode. Kinds share their
            parts: they may be written to one folder, one after the other.
        journal: of this table alone; it stays.
        sample_rate: as `mix_row`, like `mode` and `kind`.
        mode: of the lengths.
        kind: of the mixtures.
        suffix: `.wav` for 32-bit float, `.flac` for 24 bits.
        key: of all else that the mixtures depend on.

    Returns:
        LibriMix's table of mixtures, `mixture_ID`, `mixture_path`, `source_1_path` …, `noise_path`
        (but of clean ones), `length`, with `sample_rate` and the checksum of each file,
        `mixture_checksum` …

    Raises:
        MetadataError, AudioError, ValueError: as `mix_row` and `write_lossless`.
    """
    folder, journal = Path(folder), Path(journal)
    sources = 1 if kind == "single" else speakers_per_mixture(list(table.columns))
    places = {"mixture": f"mix_{kind}"} | {f"source_{n}": f"s{n}" for n in range(1, sources + 1)}
    if kind != "clean":
        places["noise"] = "noise"
    settings = [sample_rate, mode, kind, suffix, key]
    entries = _read_journal(journal)
    journal.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with journal.open("a", encoding="utf-8") as stream:
        for row in progress(table.to_dict("records"), f"mixing {journal.stem}", "mixtures"):
            name = str(row["mixture_ID"])
            paths = {part: folder / place / (name + suffix) for part, place in places.items()}
            made_of = _made_of(row, roots, settings)
            entry = entries.get(name, {})
            if entry.get("made_of") != made_of or entry["checksums"] != _checksums(paths):
                made = mix_row({str(key): row[key] for key in row}, roots, sample_rate, mode, kind)
                made.write(folder, suffix)
                checksums = _checksums(paths)
                length = len(made.mixture)
                entry = {"made_of": made_of, "length": length, "checksums": checksums}
                # A line that a kill cut off ends here, so that this one can be read.
                stream.write("\n" + json.dumps({"mixture_ID": name, **entry}) + "\n")
                stream.flush()
            rows.append(
                {"mixture_ID": name}
                | {f"{part}_path": str(path) for part, path in paths.items()}
                | {"length": entry["length"], "sample_rate": sample_rate}
                | {f"{part}_checksum": entry["checksums"][part] for part in paths}
            )
    return pd.DataFrame(rows)


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """The last whole line of each mixture."""
    entries: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and "mixture_ID" in entry:
                entries[entry.pop("mixture_ID")] = entry
    return entries


def _made_of(row: Mapping[Hashable, Any], roots: Roots, settings: list[Any]) -> str:
    """A hash of a row, of how it is mixed, and of the sizes and times of its recordings."""
    facts: list[Any] = [settings, sorted((str(key), str(value)) for key, value in row.items())]
    for column, value in row.items():
        if str(column).endswith("_path"):
            root = roots.noise if column == "noise_path" else roots.speech
            path = Path(root, str(value)) if root else None
            if path and path.is_file():
                facts.append([str(column), path.stat().st_size, path.stat().st_mtime_ns])
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _checksums(paths: Mapping[str, Path]) -> dict[str, str | None]:
    return {part: file_checksum(path) if path.is_file() else None for part, path in paths.items()}

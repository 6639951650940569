"""Files of many mixtures, made once and checked from then on."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from etaflow.journal import Journal
from etaflow.progress import progress
from etaflow.separation.mixing import (
    Kind,
    MetadataError,
    Mode,
    Roots,
    mix_row,
    speakers_per_mixture,
)


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

    A mixture is left as it is if the journal has it as of the same row, settings, key and
    recordings (by size and time), and its files are as they were written; else it is made again.

    Args:
        table: as `read_metadata` reads it, with a column `speaker_N_ID` for each speaker.
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
        (but of clean ones), `length`, with `speaker_1` …, `sample_rate` and the checksum of each
        file, `mixture_checksum` …; see `etaflow.separation.tables`.

    Raises:
        MetadataError: the table has no speakers; or as `mix_row`.
        AudioError, ValueError: as `mix_row` and `write_lossless`.
    """
    folder = Path(folder)
    sources = 1 if kind == "single" else speakers_per_mixture(list(table.columns))
    numbers = range(1, sources + 1)
    columns = [f"speaker_{n}_ID" for n in numbers]
    if missing := [column for column in columns if column not in table]:
        raise MetadataError(
            f"the mixtures' metadata have no column {', '.join(missing)}: published tables name "
            "utterances only; add the speakers of these"
        )
    nameless = table.loc[(table[columns].astype(str) == "").any(axis=1), "mixture_ID"]
    if len(nameless):
        raise MetadataError(f"mixture {nameless.iloc[0]!r} has a source without a speaker")
    places = {"mixture": f"mix_{kind}"} | {f"source_{n}": f"s{n}" for n in numbers}
    if kind != "clean":
        places["noise"] = "noise"
    settings = [sample_rate, mode, kind, suffix, key]
    rows = []
    with Journal(journal) as made:
        description = f"mixing {made.path.stem}"
        for row in progress(table.to_dict("records"), description, "mixtures"):
            name = str(row["mixture_ID"])
            files = {part: folder / place / (name + suffix) for part, place in places.items()}
            made_of = _made_of(row, roots, settings)
            entry = made.find(name, made_of, files)
            if not entry:
                values = {str(column): row[column] for column in row}
                mixed = mix_row(values, roots, sample_rate, mode, kind)
                mixed.write(folder, suffix)
                entry = made.add(name, made_of, files, length=len(mixed.mixture))
            rows.append(
                {"mixture_ID": name}
                | {f"{part}_path": str(path) for part, path in files.items()}
                | {f"speaker_{n}": str(row[f"speaker_{n}_ID"]) for n in numbers}
                | {"length": entry["length"], "sample_rate": sample_rate}
                | {f"{part}_checksum": entry["checksums"][part] for part in files}
            )
    return pd.DataFrame(rows)


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

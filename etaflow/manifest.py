"""The manifest: one row an utterance, one table a corpus.

Columns, tab-separated with a header: `utterance_id`, `speaker_id`, `session_id` (recording or
chapter), `split` (`train` or `test`), `path` (of the audio), `num_samples` (at `sample_rate`),
`sample_rate` (Hz, of the file), `text` (may be empty), `shard`, `checksum` (of the file's bytes,
so that a changed recording changes its shard's manifest).
"""

import csv
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from etaflow.atomic import atomic_file

COLUMNS = [
    "utterance_id",
    "speaker_id",
    "session_id",
    "split",
    "path",
    "num_samples",
    "sample_rate",
    "text",
    "shard",
    "checksum",
]
_NUMBERS = ["num_samples", "sample_rate"]


class ManifestError(ValueError):
    """A table that is not a manifest."""


def shard_names(num_shards: int) -> list[str]:
    """The names of all shards: `0000`, `0001`, …"""
    return [f"{index:04d}" for index in range(num_shards)]


def shard_of(speaker_id: str, num_shards: int) -> str:
    """The shard that holds a speaker: a hash of the id, the same on every machine and run.

    A shard holds whole speakers, and a new speaker moves none of the others.
    """
    digest = hashlib.blake2b(speaker_id.encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % num_shards:04d}"


def check_manifest(table: pd.DataFrame, name: str = "manifest") -> pd.DataFrame:
    """Return the table with its columns in order.

    Raises:
        ManifestError: a column is missing, an utterance id is empty or stands twice, or a value
            holds a tab or a line break, which the file format has no room for.
    """
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ManifestError(f"{name}: missing column(s) {', '.join(missing)}")
    table = table[COLUMNS]
    ids = table["utterance_id"]
    if (ids == "").any():
        raise ManifestError(f"{name}: an utterance id is empty")
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        raise ManifestError(
            f"{name}: {len(twice)} utterance id(s) stand twice, the first is {twice[0]!r}"
        )
    for column in COLUMNS:
        if column not in _NUMBERS:
            bad = table[column].astype(str).str.contains("[\t\r\n]", regex=True)
            if bad.any():
                value = table.loc[bad, column].iloc[0]
                raise ManifestError(f"{name}: tab or line break in {column} {value!r}")
    return table


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write any table as TSV, whole or not at all."""
    with atomic_file(path) as part:
        table.to_csv(part, sep="\t", index=False, quoting=csv.QUOTE_NONE, lineterminator="\n")


def read_table(path: str | Path, numbers: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a TSV as strings; the columns named in `numbers` become numbers, empty ones NaN.

    Raises:
        ManifestError: the file is empty or not UTF-8, or a line has more fields than the header.
    """
    try:
        with warnings.catch_warnings():
            # Of lines that are all too long pandas would take a field for the index, or drop one.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t",
                dtype=str,
                keep_default_na=False,
                quoting=csv.QUOTE_NONE,
                encoding="utf-8",
                index_col=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ManifestError(f"{path}: not a readable table: {error}") from error
    for column in numbers:
        table[column] = pd.to_numeric(table[column].mask(table[column] == ""))
    return table


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Check and write a manifest, sorted by utterance id."""
    write_table(check_manifest(table, str(path)).sort_values("utterance_id"), path)


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read and check a manifest."""
    table = read_table(path)
    check_manifest(table, str(path))
    return table.astype(dict.fromkeys(_NUMBERS, int))


def joint_table(manifests: Sequence[str | Path]) -> pd.DataFrame:
    """The manifests `CORPUS.….tsv` of one or more corpora in one table.

    Of several corpora, ids get their corpus in front: speaker 225 of one is not that of another.
    """
    tables = []
    for path in map(Path, manifests):
        table = read_manifest(path)
        if len(manifests) > 1:
            names = {
                name: path.name.split(".")[0] + "/" + table[name]
                for name in ("utterance_id", "speaker_id")
            }
            table = table.assign(**names)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def training_utterances(table: pd.DataFrame, count: int | None = None, seed: int = 0) -> list[str]:
    """Ids of the `train` split, in order; a seeded draw of `count` of them unless None.

    Of one seed, a smaller draw is part of a larger one.

    Raises:
        ManifestError: there are fewer.
    """
    ids = sorted(table.loc[table["split"] == "train", "utterance_id"])
    if count is None:
        return ids
    if count > len(ids):
        raise ManifestError(f"{count} training utterances asked for, there are {len(ids)}")
    order = np.random.default_rng(seed).permutation(len(ids))
    return sorted(ids[index] for index in order[:count])


def hold_out(
    names: Sequence[str], count: int, seed: int, what: str = "utterances"
) -> tuple[list[str], list[str]]:
    """Split off `count` of these names, drawn by `seed`: those that remain, and those held out.

    Raises:
        ManifestError: fewer than `count` + 1 names, of what `what` says.
    """
    if not 0 < count < len(names):
        raise ManifestError(f"cannot hold {count} of {len(names)} {what} out of training")
    order = np.random.default_rng(seed).permutation(len(names))
    held = {names[index] for index in order[:count]}
    return [name for name in names if name not in held], sorted(held)


def first_names(names: Sequence[str], most: int = 5) -> str:
    """The first of these names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")

"""Tables of mixtures, and of what they were separated into: files, speakers, checksums."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.audio import Waveform, file_checksum, read_audio
from etaflow.decoding import AudioError
from etaflow.manifest import first_names, read_table
from etaflow.separation.mixing import MetadataError, count_sources

NUMBERS = ["length", "sample_rate"]


def mixture_columns(sources: int, noise: bool = False) -> list[str]:
    """The columns of a table of mixtures of so many sources; paths and checksums of each file."""
    numbers = range(1, sources + 1)
    parts = ["mixture", *(f"source_{n}" for n in numbers), *(["noise"] if noise else [])]
    paths, checksums = ([f"{part}_{what}" for part in parts] for what in ("path", "checksum"))
    return ["mixture_ID", *paths, *(f"speaker_{n}" for n in numbers), *NUMBERS, *checksums]


def separated_columns(sources: int) -> list[str]:
    """The columns of a table of estimates, so many a mixture."""
    parts = [f"estimate_{n}" for n in range(1, sources + 1)]
    paths, checksums = ([f"{part}_{what}" for part in parts] for what in ("path", "checksum"))
    return ["mixture_ID", *paths, *NUMBERS, "mixture_checksum", *checksums, "weights"]


def num_sources(table: pd.DataFrame) -> int:
    """How many sources each mixture of a table has."""
    return count_sources(table.columns)


def speakers_of_mixtures(table: pd.DataFrame) -> npt.NDArray[np.str_]:
    """The speakers (N, S) of the mixtures of a table, in order of their sources."""
    names = [f"speaker_{n}" for n in range(1, num_sources(table) + 1)]
    return table[names].to_numpy(str)


def read_mixtures(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read the tables of a part's shards as one, sorted by `mixture_ID`.

    Returns:
        `mixture_columns`, all strings but `length` (samples) and `sample_rate` (Hz).

    Raises:
        ManifestError: a file is no table.
        MetadataError: a column is missing, a table has other columns than the first or no
            mixture, a number is none, there are two rates, or a mixture stands twice.
    """
    if not paths:
        raise MetadataError("no table of mixtures is given")
    tables = [_read(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        found, expected = map(", ".join, (table.columns, tables[0].columns))
        if found != expected:
            raise MetadataError(f"{path}: columns {found}; {paths[0]} has {expected}")
        rates = {*table["sample_rate"], *tables[0]["sample_rate"]}
        if len(rates) > 1:
            raise MetadataError(
                f"{path}: mixtures at {' and '.join(map(str, sorted(rates)))} Hz, with those of "
                f"{paths[0]}; make all at one rate"
            )
    whole = pd.concat(tables, ignore_index=True)
    twice = sorted(set(whole["mixture_ID"][whole["mixture_ID"].duplicated()]))
    if twice:
        raise MetadataError(
            f"{len(twice)} mixture(s) stand twice in {', '.join(map(str, paths))}: "
            f"{first_names(twice)}"
        )
    return whole.sort_values("mixture_ID", ignore_index=True)


def read_separated(path: str | Path, mixtures: pd.DataFrame) -> pd.DataFrame:
    """Read the table of the estimates of these mixtures, in their order.

    Returns:
        `separated_columns`, numbers as in `read_mixtures`.

    Raises:
        ManifestError: it is no table.
        MetadataError: it has other columns, so more or fewer estimates than the mixtures have
            sources, or other mixtures, which may have the same names.
    """
    table = read_table(path)
    columns = separated_columns(num_sources(mixtures))
    if sorted(table.columns) != sorted(columns):
        raise MetadataError(
            f"{path}: columns {', '.join(table.columns)}; estimates of {num_sources(mixtures)} "
            f"sources have {', '.join(columns)}"
        )
    found, expected = sorted(table["mixture_ID"]), sorted(mixtures["mixture_ID"])
    if found != expected:
        others = sorted({*found} ^ {*expected}) or ["a mixture stands twice"]
        raise MetadataError(
            f"{path}: estimates of other mixtures than those listed: {first_names(others)}; "
            "separate these mixtures again"
        )
    table = _with_numbers(table, path).set_index("mixture_ID").loc[mixtures["mixture_ID"]]
    for name in [*NUMBERS, "mixture_checksum"]:
        odd = np.flatnonzero(table[name].to_numpy() != mixtures[name].to_numpy())
        if len(odd):
            values = [part[name].iloc[odd[0]] for part in (table, mixtures)]
            raise MetadataError(
                f"{path}: {table.index[odd[0]]} has a {name} of {values[0]}, its mixture of "
                f"{values[1]}; separate these mixtures again"
            )
    return table.reset_index()[columns]


def read_listed(path: str | Path, checksum: str, sample_rate: int | None = None) -> Waveform:
    """Read a file of a table as mono (T,), at this rate or at its own.

    Raises:
        AudioError: as `read_audio`, or the file has another checksum than its table says.
    """
    try:
        found = file_checksum(path)
    except OSError as error:
        raise AudioError(path, f"unreadable: {error.strerror}") from error
    if found != checksum:
        raise AudioError(path, "changed since its table was written; make both again")
    return read_audio(path, sample_rate)


def _read(path: str | Path) -> pd.DataFrame:
    table = read_table(path)
    sources = max(1, num_sources(table))
    columns = mixture_columns(sources, "noise_path" in table)
    if missing := [name for name in columns if name not in table]:
        raise MetadataError(
            f"{path}: missing column(s) {', '.join(missing)}; mix the speakers anew"
        )
    if table.empty:
        raise MetadataError(f"{path}: has no mixtures")
    return _with_numbers(table, path)


def _with_numbers(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    for name in NUMBERS:
        odd = table.loc[~table[name].str.fullmatch("[0-9]*[1-9][0-9]*"), name]
        if len(odd):
            raise MetadataError(
                f"{path}, line {odd.index[0] + 2}: {name} {odd.iloc[0]!r} is no positive number"
            )
    return table.astype(dict.fromkeys(NUMBERS, np.int64))

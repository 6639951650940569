"""Small tables of mixtures, with their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.audio import file_checksum, write_lossless
from etaflow.separation.tables import mixture_columns, separated_columns

Signals = npt.NDArray[np.float32]


def draw_sources(lengths: Sequence[int], sources: int = 2, seed: int = 0) -> list[Signals]:
    """Sources (S, T) of so many samples each."""
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.1, (sources, size)).astype(np.float32) for size in lengths]


def _written(folder: Path, parts: dict[str, Signals], name: str, rate: int) -> dict[str, Any]:
    row: dict[str, Any] = {"mixture_ID": name, "sample_rate": rate}
    for part, signal in parts.items():
        path = folder / part / f"{name}.wav"
        write_lossless(path, signal, rate)
        row |= {f"{part}_path": str(path), f"{part}_checksum": file_checksum(path)}
        row |= {"length": len(signal)}
    return row


def mixture_table(folder: Path, sources: Sequence[Signals], rate: int = 8_000) -> pd.DataFrame:
    """Write mixtures m0, m1 …, the sums of their sources; speakers are taken in turns of five."""
    rows = []
    for index, own in enumerate(sources):
        parts = {f"source_{n}": signal for n, signal in enumerate(own, 1)}
        row = _written(folder, {"mixture": own.sum(axis=0), **parts}, f"m{index}", rate)
        rows.append(row | {f"speaker_{n}": f"s{(index + n) % 5}" for n in range(1, len(own) + 1)})
    return pd.DataFrame(rows)[mixture_columns(len(sources[0]))]


def separated_table(
    folder: Path,
    mixtures: pd.DataFrame,
    estimates: Sequence[Signals],
    rate: int = 8_000,
    weights: str = "trained",
) -> pd.DataFrame:
    """Write the estimates (S, T) of m0, m1 …, which are the mixtures of a table."""
    rows = [
        _written(folder, {f"estimate_{n}": one for n, one in enumerate(own, 1)}, f"m{index}", rate)
        for index, own in enumerate(estimates)
    ]
    table = pd.DataFrame(rows).assign(weights=weights)
    table["mixture_checksum"] = mixtures["mixture_checksum"].to_numpy()
    return table[separated_columns(len(estimates[0]))]

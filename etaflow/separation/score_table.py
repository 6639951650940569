"""The scores of separations, a row a mixture and source."""

from pathlib import Path

import pandas as pd

from etaflow.manifest import read_table

RATIOS = ["si_snr", "mixture_si_snr", "si_snri", "sdr", "mixture_sdr", "sdri"]  # dB
COLUMNS = ["mixture_ID", "source", "speaker", "estimate", *RATIOS]


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read the scores of a system on a set of mixtures, a row a mixture and source.

    Returns:
        `COLUMNS`; sources and estimates count from 1.

    Raises:
        ValueError: a column is missing, there is no row, a score is no finite number, or a
            source of a mixture stands twice.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"{path}: missing column(s) {', '.join(missing)}; score the system anew")
    if table.empty:
        raise ValueError(f"{path}: no scores")
    for name in ("source", "estimate", *RATIOS):
        numbers = pd.to_numeric(table[name], errors="coerce")
        odd = table[~numbers.abs().lt(float("inf"))]
        if len(odd):
            row = odd.iloc[0]
            raise ValueError(f"{path}: {row['mixture_ID']} has {name} {row[name]!r}, no number")
        table[name] = numbers.astype(int) if name in ("source", "estimate") else numbers
    twice = table[table.duplicated(["mixture_ID", "source"])]
    if len(twice):
        raise ValueError(f"{path}: a source of {twice.iloc[0]['mixture_ID']} stands twice")
    return table[COLUMNS]


def mixture_means(scores: pd.DataFrame, metric: str = "si_snri") -> "pd.Series[float]":
    """The mean of a metric over the sources of each mixture, by `mixture_ID`, in its order."""
    return scores.groupby("mixture_ID")[metric].mean()

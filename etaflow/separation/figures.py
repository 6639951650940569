"""The figures of a system on mixtures, with intervals over speakers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from etaflow.metrics import Indices, bootstrap_intervals

COLUMNS = ["system", "mixtures", "metric", "value", "low", "high", "n", "weights"]
METRICS, BASELINE_METRICS = ["si_snr", "si_snri", "sdr", "sdri"], ["si_snr", "sdr"]


def separation_metrics(
    names: tuple[str, str],
    scores: pd.DataFrame,
    weights: str,
    before: pd.DataFrame | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The figures of one system on one set of mixtures: `COLUMNS`, in dB.

    `si_snr`, `si_snri`, `sdr` and `sdri` are means over mixtures of the mean over sources; of
    mixtures scored as what separates nothing there are `si_snr` and `sdr` only. `si_snri_gain` is
    the mean over mixtures of the SI-SNRi less that of the system before. `low` and `high` bound
    the bootstrap 95 % interval over speakers: each sample draws as many speakers as there are,
    with replacement, and a mixture counts as the product of how often its speakers were drawn, in
    the same samples for both systems. Samples without a mixture are left out.

    Args:
        names: of the system and of the mixtures.
        scores: as `score_mixtures` gives them.
        weights: the worst weights in the path: `trained`, `published` or `untrained`.
        before: scores of the system before, as `scores_before` reads them.
        rounds: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: no sample has a mixture.
    """
    metrics = BASELINE_METRICS if scores["estimate"].isna().all() else METRICS
    means = scores.groupby("mixture_ID")[metrics].mean()
    if before is not None:
        gain = means["si_snri"] - before.groupby("mixture_ID")["si_snri"].mean()
        means = means.assign(si_snri_gain=gain)
    speakers = scores.pivot(index="mixture_ID", columns="source", values="speaker").loc[means.index]
    drawable, codes = np.unique(speakers.to_numpy(str), return_inverse=True)
    codes, values = codes.reshape(speakers.shape), means.to_numpy(float)

    def statistic(drawn: Indices) -> Sequence[float]:
        times = np.bincount(drawn, minlength=len(drawable))[codes].prod(axis=1)
        if not times.any():
            return [float("nan")] * values.shape[1]
        means: Sequence[float] = times @ values / times.sum()
        return means

    intervals = bootstrap_intervals(statistic, len(drawable), rounds, seed)
    rows = [
        (*names, metric, round(value, 4), round(low, 4), round(high, 4), len(values), weights)
        for metric, value, (low, high) in zip(
            means.columns, values.mean(axis=0).tolist(), intervals.tolist(), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS)

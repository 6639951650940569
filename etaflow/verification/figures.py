"""The figures of a system on a list of trials, with intervals over speakers."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.metrics import (
    Indices,
    act_dcf,
    bootstrap_intervals,
    cllr,
    detection_error_curve,
    equal_error_point,
    least_cost,
)

COLUMNS = ["system", "trials", "metric", "value", "low", "high", "n", "weights"]
PRIORS = (0.01, 0.05)


def _names(calibrated: bool) -> list[str]:
    names = ["eer", *(f"min_dcf_{p}" for p in PRIORS)]
    return names + ([*(f"act_dcf_{p}" for p in PRIORS), "cllr"] if calibrated else [])


def _figures(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike, calibrated: bool
) -> list[float]:
    accept, reject, thresholds = detection_error_curve(scores, labels, weights)
    figures = [100 * equal_error_point(accept, reject, thresholds)[0]]
    figures += [least_cost(accept, reject, p) for p in PRIORS]
    if calibrated:
        figures += [act_dcf(scores, labels, p, weights) for p in PRIORS]
        figures.append(cllr(scores, labels, weights))
    return figures


def verification_metrics(
    names: tuple[str, str],
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    speakers: npt.ArrayLike,
    weights: str,
    calibrated: bool,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The figures of one system on one list: `system trials metric value low high n weights`.

    `eer` is in percent, `min_dcf_P` and `act_dcf_P` are costs at a prior P as a share of the cost
    of deciding without scores, `cllr` is in bits; the last two need calibrated scores. `low` and
    `high` bound the bootstrap 95 % interval over speakers: each sample draws as many speakers as
    there are, with replacement, and a trial counts as often as its speaker was drawn, or as the
    product for its two. Samples without trials of both classes are left out.

    Args:
        names: of the system and of the list.
        scores: (N,) of the trials.
        labels: (N,) 1 for target, 0 for non-target trials.
        speakers: (N, 2) of both utterances.
        weights: the worst weights in the path: `trained`, `published` or `untrained`.
        calibrated: whether the scores are log-likelihood ratios.
        rounds: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: see `detection_error_curve`; or no sample has trials of both classes.
    """
    # Sorted once, here: the curve of each sample then takes linear time.
    order = np.argsort(np.asarray(scores, np.float64), kind="stable")
    values, targets = np.asarray(scores, np.float64)[order], np.asarray(labels)[order]
    drawable, codes = np.unique(np.asarray(speakers)[order], return_inverse=True)
    first, second = codes.reshape(-1, 2).T
    same = targets == 1
    metrics = _names(calibrated)

    def statistic(drawn: Indices) -> list[float]:
        counts = np.bincount(drawn, minlength=len(drawable))
        times = counts[first] * np.where(same, 1, counts[second])
        if not times[same].any() or not times[~same].any():
            return [float("nan")] * len(metrics)
        return _figures(values, targets, times, calibrated)

    found = _figures(values, targets, np.ones(len(values)), calibrated)
    intervals = bootstrap_intervals(statistic, len(drawable), rounds, seed)
    rows = [
        (*names, metric, round(value, 4), round(low, 4), round(high, 4), len(values), weights)
        for metric, value, (low, high) in zip(metrics, found, intervals.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)

"""Errors and costs of speaker verification, from the scores of trials.

All functions take `scores` (N,), higher means more likely a target; `labels` (N,), 1 for target
and 0 for non-target trials; `weights` (N,), how often each trial counts, not negative, once if
None. All raise `ValueError` for nothing to score, NaN or infinite scores, shapes that differ,
labels other than 0 and 1, weights below 0, or trials (of positive weight) of one class only.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
_Numbers = npt.NDArray[np.float64]


def _checked_trials(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Scores, and the weight of each trial as a target and as a non-target."""
    values, classes = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != classes.shape:
        raise ValueError(
            f"scores {values.shape} and labels {classes.shape} must be vectors of one length"
        )
    if len(values) == 0:
        raise ValueError("no trials: scores and labels are empty")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} score(s) are NaN or infinite")
    targets = classes == 1
    if not (targets | (classes == 0)).all():
        raise ValueError("labels must be 1 (target) or 0 (non-target)")
    counts = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if counts.shape != values.shape or not (counts >= 0).all():
        raise ValueError(f"weights must be {len(values)} numbers of 0 or more")
    of_targets, of_others = counts * targets, counts * ~targets
    for name, of_class in (("target (1)", of_targets), ("non-target (0)", of_others)):
        if not of_class.any():
            raise ValueError(f"trials of one class only: there is no {name} trial")
    return values, of_targets, of_others


def _checked_prior(p_target: float) -> None:
    if not 0 < p_target < 1:
        raise ValueError(f"p_target must be between 0 and 1, not {p_target}")


def detection_error_curve(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """False-accept and false-reject rates at every threshold, for DET plots.

    A trial is accepted if its score is at or above the threshold, so trials of one score are
    accepted together. One sort and two cumulative sums (sorted scores take linear time).

    Returns:
        false_accept (K,) falling from 1 to 0, false_reject (K,) rising from 0 to 1, and the
        thresholds (K,): the distinct scores, rising, then infinity, which rejects all.
    """
    values, of_targets, of_others = _checked_trials(scores, labels, weights)
    if (values[1:] < values[:-1]).any():
        order = np.argsort(values, kind="stable")
        values, of_targets, of_others = values[order], of_targets[order], of_others[order]
    # first[k] is the first trial that threshold k accepts; all before it are rejected.
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    rejected_targets = np.concatenate([[0.0], np.cumsum(of_targets)])
    rejected_others = np.concatenate([[0.0], np.cumsum(of_others)])
    ends = np.append(first, len(values))
    false_reject = rejected_targets[ends] / rejected_targets[-1]
    false_accept = 1.0 - rejected_others[ends] / rejected_others[-1]
    return false_accept, false_reject, np.append(values[first], np.inf)


def equal_error_point(accept: Floats, reject: Floats, thresholds: Floats) -> tuple[float, float]:
    """The rate at which false accepts equal false rejects, and the threshold there.

    The crossing is interpolated linearly between neighbouring points of the detection error
    curve, as scikit-learn's ROC curve and a root finder would give it.

    Returns:
        The rate, 0 to 1, and the threshold, in the unit of the scores. If only rejecting all
        trials lies beyond the crossing, the threshold is the highest score.
    """
    above = int(np.argmax(reject >= accept))  # at least 1: the curve starts at (1, 0)
    below = above - 1
    gap_below, gap_above = accept[below] - reject[below], reject[above] - accept[above]
    share = gap_below / (gap_below + gap_above)
    rate = accept[below] + share * (accept[above] - accept[below])
    if np.isinf(thresholds[above]):
        return float(rate), float(thresholds[below])
    step = thresholds[above] - thresholds[below]
    return float(rate), float(thresholds[below] + share * step)


def equal_error_rate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """The `equal_error_point` of the trials' detection error curve."""
    return equal_error_point(*detection_error_curve(scores, labels, weights))


def least_cost(accept: Floats, reject: Floats, p_target: float) -> float:
    """The least detection cost on a detection error curve; see `min_dcf`."""
    _checked_prior(p_target)
    cost = (p_target * reject + (1 - p_target) * accept).min()
    return float(cost / min(p_target, 1 - p_target))


def min_dcf(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Detection cost at the best threshold, 0 to 1, both kinds of error costing 1.

    The least p P_miss + (1 - p) P_fa over all thresholds, to accept all and to reject all among
    them, as a share of what the better of these two costs, min(p, 1 - p) (NIST SRE 2016 plan).

    Args:
        scores: see the module, as `labels` and `weights`.
        labels: 1 or 0.
        p_target: p, the probability of a target trial in use, between 0 and 1.
        weights: of the trials.
    """
    accept, reject, _ = detection_error_curve(scores, labels, weights)
    return least_cost(accept, reject, p_target)


def act_dcf(
    llrs: npt.ArrayLike,
    labels: npt.ArrayLike,
    p_target: float = 0.01,
    weights: npt.ArrayLike | None = None,
) -> float:
    """As `min_dcf`, at the threshold log((1 - p) / p) that Bayes' rule gives for LLRs.

    Args:
        llrs: natural logarithms of likelihood ratios; accepted at or above the threshold.
        labels: 1 or 0.
        p_target: as for `min_dcf`.
        weights: of the trials.
    """
    _checked_prior(p_target)
    values, of_targets, of_others = _checked_trials(llrs, labels, weights)
    accepted = values >= np.log((1 - p_target) / p_target)
    reject = 1 - of_targets @ accepted / of_targets.sum()
    accept = of_others @ accepted / of_others.sum()
    cost = p_target * reject + (1 - p_target) * accept
    return float(cost / min(p_target, 1 - p_target))


def cllr(llrs: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Cost of log-likelihood ratios in bits: 0 is perfect, 1 what an LLR of 0 costs.

    Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer
    Speech and Language 2006: mean of log2(1 + 1/LR) over targets and log2(1 + LR) over others.

    Args:
        llrs: natural logarithms of likelihood ratios.
        labels: 1 or 0.
        weights: of the trials.
    """
    values, of_targets, of_others = _checked_trials(llrs, labels, weights)
    costs = np.logaddexp(0, np.where(of_others > 0, values, -values))
    missed, accepted = of_targets @ costs / of_targets.sum(), of_others @ costs / of_others.sum()
    return float((missed + accepted) / (2 * np.log(2)))

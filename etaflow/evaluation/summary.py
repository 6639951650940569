"""The figures of a system with their intervals."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from etaflow.evaluation.tables import COLUMNS
from etaflow.evaluation.trials import ConversionTrials
from etaflow.evaluation.utterances import MEANS
from etaflow.metrics import Floats, Indices, bootstrap_interval

_log = logging.getLogger(__name__)


def metrics_table(
    system: str,
    utterances: pd.DataFrame,
    trials: ConversionTrials,
    weights: str,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The figures of one system: `system metric value low high n weights`.

    Rates are in percent, `si_snr` in dB, similarities cosines, `dnsmos` 1 to 5, `mel_distance` in
    natural-log units. `low` and `high` bound the bootstrap 95 % interval. Drawn, and counted in
    `n`, are utterances; for equal error rates the conversions and recordings of each target are
    drawn, and `n` counts targets (`eer_per_target`) or trials (`eer_pooled`).

    Args:
        system: its name.
        utterances: from `score_utterances`; a score that no utterance has makes no row.
        trials: from `conversion_trials`.
        weights: the worst weights in the path: `trained`, `published` or `untrained`.
        rounds: bootstrap samples.
        seed: of the bootstrap.
    """
    rows: list[dict[str, Any]] = []

    def add(
        metric: str, statistic: Callable[[Indices], float], size: int | Sequence[int], n: int
    ) -> None:
        low, high = bootstrap_interval(statistic, size, rounds, seed)
        value = statistic(np.arange(np.sum(size)))
        figures = {"value": value, "low": low, "high": high}
        figures = {name: round(figure, 4) for name, figure in figures.items()}
        rows.append({"system": system, "metric": metric, **figures, "n": n, "weights": weights})

    spoken = utterances.dropna(subset=["words"])
    if spoken.empty:
        _log.warning("%s: no utterance has a text: no word or character error rate", system)
    else:
        for metric, wrong, of in (
            ("wer", "word_errors", "words"),
            ("cer", "character_errors", "characters"),
        ):
            errors, total = (spoken[name].to_numpy(float) for name in (wrong, of))
            add(metric, _ratio(errors, total), len(spoken), len(spoken))
    if trials.sizes:
        places = sum(trials.sizes)
        for metric, rate, n in (
            ("eer_per_target", trials.eer_per_target, trials.num_targets),
            ("eer_pooled", trials.eer_pooled, len(trials.table)),
        ):
            add(metric, _of_counts(rate, places), trials.sizes, n)
    for metric in MEANS:
        values = utterances[metric].dropna().to_numpy(float)
        if len(values):
            add(metric, _mean(values), len(values), len(values))
    return pd.DataFrame(rows, columns=COLUMNS)


def _ratio(errors: Floats, total: Floats) -> Callable[[Indices], float]:
    return lambda drawn: float(100 * errors[drawn].sum() / total[drawn].sum())


def _mean(values: Floats) -> Callable[[Indices], float]:
    return lambda drawn: float(values[drawn].mean())


def _of_counts(rate: Callable[[Indices], float], places: int) -> Callable[[Indices], float]:
    return lambda drawn: rate(np.bincount(drawn, minlength=places))

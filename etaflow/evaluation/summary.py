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
    natural-log units. `low` and `high` bound the bootstrap 95 % interval. Drawn are source
    utterances, each with all that was made of it, since those are alike; for equal error rates the
    conversions and recordings of each target. `n` counts utterances, targets (`eer_per_target`) or
    trials (`eer_pooled`).

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
            of_source = spoken.groupby("source_id")[[wrong, of]].sum().to_numpy(float)
            add(metric, _ratio(100 * of_source[:, 0], of_source[:, 1]), len(of_source), len(spoken))
    if trials.sizes:
        places = sum(trials.sizes)
        for metric, rate, n in (
            ("eer_per_target", trials.eer_per_target, trials.num_targets),
            ("eer_pooled", trials.eer_pooled, len(trials.table)),
        ):
            add(metric, _of_counts(rate, places), trials.sizes, n)
    gained = utterances["similarity_target"] - utterances["similarity_source"]
    utterances = utterances.assign(nearer_target=(100.0 * (gained > 0)).where(gained.notna()))
    for metric in (*MEANS[:2], "nearer_target", *MEANS[2:]):
        scored = utterances.dropna(subset=[metric]).groupby("source_id")[metric]
        if len(scored):
            of_source = scored.agg(["sum", "count"]).to_numpy(float)
            count = int(of_source[:, 1].sum())
            add(metric, _ratio(of_source[:, 0], of_source[:, 1]), len(of_source), count)
    return pd.DataFrame(rows, columns=COLUMNS)


def _ratio(sums: Floats, counts: Floats) -> Callable[[Indices], float]:
    return lambda drawn: float(sums[drawn].sum() / counts[drawn].sum())


def _of_counts(rate: Callable[[Indices], float], places: int) -> Callable[[Indices], float]:
    return lambda drawn: rate(np.bincount(drawn, minlength=places))

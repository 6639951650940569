"""Can an encoder tell a conversion to a speaker from the speaker?

kNN-VC's protocol (Baas et al. 2023, arXiv 2305.18975): for each target speaker, all pairs of their
recordings are positive trials, each conversion to them with each recording a negative one. An
equal error rate of 50 % says that the two are indistinguishable: higher is better.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.evaluation.utterances import RealSpeech
from etaflow.metrics import equal_error_rate
from etaflow.store import Floats

COLUMNS = ["target_speaker", "kind", "score", "first", "second"]
MIN_REAL = 3  # recordings of a target speaker that an equal error rate needs

_log = logging.getLogger(__name__)
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConversionTrials:
    """Trials, a row each, and the groups of utterances to draw from in a bootstrap.

    `table` has `target_speaker`, `kind` (`real` or `converted`), `score` (cosine) and the numbers
    `first` and `second` of the two utterances. Utterances are numbered group after group: the
    recordings of a target, the conversions to it, the recordings of the next; `sizes` are the
    lengths of these groups.
    """

    table: pd.DataFrame
    sizes: list[int]

    @cached_property
    def _arrays(self) -> list[npt.NDArray[np.generic]]:
        positive = self.table["kind"] == "real"
        columns = [self.table[name] for name in ("score", "first", "second")]
        return [column.to_numpy() for column in (*columns, positive)]

    @cached_property
    def _targets(self) -> list[list[npt.NDArray[np.generic]]]:
        places = self.table.groupby("target_speaker").indices.values()
        return [[array[rows] for array in self._arrays] for rows in places]

    @property
    def num_targets(self) -> int:
        """How many target speakers there are trials of."""
        return len(self._targets)

    def eer_pooled(self, counts: Counts) -> float:
        """Equal error rate of all trials together, in percent.

        `counts` (sum of sizes,) says how often each utterance stands in the sample; an utterance
        drawn twice makes no pair with itself. NaN if no two recordings are in the sample.
        """
        return _error_rate(self._arrays, counts)

    def eer_per_target(self, counts: Counts) -> float:
        """Mean over target speakers of their equal error rate, in percent, as `eer_pooled`.

        A target of which no two recordings are in the sample is left out of the mean.
        """
        rates = np.array([_error_rate(arrays, counts) for arrays in self._targets])
        return float(np.nanmean(rates)) if np.isfinite(rates).any() else float("nan")


def _error_rate(arrays: list[npt.NDArray[np.generic]], counts: Counts) -> float:
    scores, first, second, positive = arrays
    weights = counts[first] * counts[second]
    if not weights[positive].any():
        return float("nan")
    return 100 * equal_error_rate(scores, positive, weights)[0]


def conversion_trials(
    converted: pd.DataFrame, vectors: Floats, real: RealSpeech
) -> ConversionTrials:
    """The trials of a system; one that does not convert has none.

    Targets with fewer than 3 recordings are left out and named on stderr.

    Args:
        converted: `source_speaker` and `target_speaker` of U utterances.
        vectors: (U, V) their embeddings, of length 1.
        real: the recordings of the target speakers.
    """
    conversions = (converted["source_speaker"] != converted["target_speaker"]).to_numpy()
    tables: list[pd.DataFrame] = []
    sizes: list[int] = []
    for target in sorted(set(converted.loc[conversions, "target_speaker"])):
        made = vectors[conversions & (converted["target_speaker"] == target).to_numpy()]
        recorded = real.of(target)
        if len(recorded) < MIN_REAL:
            _log.warning(
                "no equal error rate for target speaker %s: %d real recording(s), %d are needed",
                target,
                len(recorded),
                MIN_REAL,
            )
            continue
        one, other = np.triu_indices(len(recorded), k=1)
        recording, conversion = (i.ravel() for i in np.indices((len(recorded), len(made))))
        positive = (recorded[one] * recorded[other]).sum(axis=1)
        negative = (recorded @ made.T).ravel()
        tables.append(
            pd.DataFrame(
                {
                    "target_speaker": target,
                    "kind": ["real"] * len(positive) + ["converted"] * len(negative),
                    "score": np.concatenate([positive, negative]),
                    "first": sum(sizes) + np.concatenate([one, recording]),
                    "second": sum(sizes) + np.concatenate([other, len(recorded) + conversion]),
                }
            )
        )
        sizes += [len(recorded), len(made)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    # Sorted once, here: the error rate of each bootstrap sample then takes linear time.
    return ConversionTrials(table.sort_values("score", ignore_index=True), sizes)

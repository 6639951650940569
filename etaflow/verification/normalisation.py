"""Adaptive symmetric score normalisation (Matějka et al., Interspeech 2017)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import first_names
from etaflow.store import Embeddings, Floats
from etaflow.trials import TrialsError
from etaflow.verification.scores import trial_places, utterance_vectors

BLOCK = 2_000_000  # cohort scores at a time


@dataclass(frozen=True)
class Cohort:
    """Speakers to compare utterances with: S of them, and their mean embeddings (S, V)."""

    speakers: list[str]
    vectors: Floats

    @classmethod
    def of_training(cls, embeddings: Embeddings, manifest: pd.DataFrame) -> "Cohort":
        """Means, of length 1, over each speaker's utterances in the training split.

        Raises:
            StoreError: an utterance has no embedding.
            TrialsError: the split is empty.
        """
        table = manifest[manifest["split"] == "train"]
        if table.empty:
            raise TrialsError("no cohort: its corpus has no training split")
        ids = list(table["utterance_id"])
        chosen = Embeddings(
            ids,
            list(table["speaker_id"]),
            embeddings.rows(ids),
            embeddings.encoder,
            embeddings.weights,
        )
        means = chosen.speaker_means()
        return cls(list(means), np.stack(list(means.values())).astype(np.float32))


def _statistics(
    vectors: Floats, own: npt.NDArray[np.int64], cohort: Floats, topk: int
) -> tuple[Floats, Floats]:
    means, deviations = np.empty((2, len(vectors)))
    rows = max(1, BLOCK // len(cohort))
    for start in range(0, len(vectors), rows):
        scores = vectors[start : start + rows] @ cohort.T
        place = own[start : start + rows]
        inside = np.flatnonzero(place >= 0)
        scores[inside, place[inside]] = -np.inf
        top = np.partition(scores, -topk, axis=1)[:, -topk:].astype(np.float64)
        means[start : start + rows] = top.mean(axis=1)
        deviations[start : start + rows] = top.std(axis=1)
    return means, deviations


def as_norm(
    trials: pd.DataFrame,
    scores: npt.ArrayLike,
    embeddings: Embeddings,
    cohort: Cohort,
    topk: int = 300,
) -> npt.NDArray[np.float64]:
    """Scores (N,) relative to those that each utterance gets with the speakers most like it.

    The mean over both utterances of (score - mean) / deviation, where mean and deviation are those
    of the utterance's `topk` highest cosines with the cohort. An utterance's own speaker, if among
    the cohort, is left out of it. Each utterance meets the cohort once.

    Args:
        trials: N of them.
        scores: (N,) their cosines.
        embeddings: of their utterances.
        cohort: by the same encoder.
        topk: 2 or more.

    Raises:
        TrialsError: the cohort has fewer speakers, or all its scores of an utterance are the same.
        StoreError: an utterance has no embedding.
    """
    utterances, places = trial_places(trials)
    vectors = utterance_vectors(utterances, embeddings)
    owner = dict(zip(embeddings.utterance_ids, embeddings.speaker_ids, strict=True))
    number = {name: place for place, name in enumerate(cohort.speakers)}
    own = np.array([number.get(owner[name], -1) for name in utterances])
    left = len(cohort.speakers) - int((own >= 0).any())
    if not 2 <= topk <= left:
        raise TrialsError(
            f"score normalisation by the {topk} nearest of a cohort of {left} speaker(s): "
            "topk must be 2 or more, and no more than there are"
        )
    means, deviations = _statistics(vectors, own, cohort.vectors, topk)
    flat = np.flatnonzero(deviations < 1e-9)
    if len(flat):
        raise TrialsError(
            "cohort scores that do not differ cannot normalise: "
            f"{first_names([utterances[place] for place in flat])}"
        )
    cosines = np.asarray(scores, np.float64)[:, None]
    return np.asarray(((cosines - means[places]) / deviations[places]).mean(axis=1))

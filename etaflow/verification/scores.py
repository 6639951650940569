"""Scores of trials."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import first_names
from etaflow.store import Embeddings, Floats
from etaflow.trials import COLUMNS, TrialsError

BLOCK = 50_000  # trials whose vectors are gathered at a time
Integers = npt.NDArray[np.int64]


def trial_places(trials: pd.DataFrame) -> tuple[list[str], Integers]:
    """The utterances of trials, each once, and the places (N, 2) of each trial's two in them."""
    names = pd.concat([trials["enrolment"], trials["test"]], ignore_index=True)
    places, utterances = pd.factorize(names)
    return list(utterances), places.reshape(2, -1).T


def utterance_vectors(utterances: Sequence[str], embeddings: Embeddings) -> Floats:
    """The embeddings (U, V) of utterances, scaled to length 1.

    Raises:
        StoreError: an utterance has no embedding.
        TrialsError: an embedding is zero.
    """
    vectors = embeddings.rows(utterances)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        zero = [utterances[place] for place in np.flatnonzero(lengths[:, 0] == 0).tolist()]
        raise TrialsError(f"embeddings that are zero have no cosine: {first_names(zero)}")
    return np.asarray(vectors / lengths)


def cosine_scores(trials: pd.DataFrame, embeddings: Embeddings) -> npt.NDArray[np.float64]:
    """Cosines (N,) of the embeddings of each trial's two utterances.

    Raises:
        StoreError: an utterance has no embedding.
        TrialsError: an embedding is zero.
    """
    utterances, places = trial_places(trials)
    vectors = utterance_vectors(utterances, embeddings)
    scores = np.empty(len(trials))
    for start in range(0, len(trials), BLOCK):
        first, second = places[start : start + BLOCK].T
        scores[start : start + BLOCK] = np.einsum("nv,nv->n", vectors[first], vectors[second])
    return scores


def average_scores(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean score of each trial, from tables of scores of the same trials in the same order.

    Raises:
        TrialsError: there is no table, or two are of different trials.
    """
    if not tables:
        raise TrialsError("no scores to average")
    for number, table in enumerate(tables[1:], start=2):
        if len(table) != len(tables[0]):
            raise TrialsError(
                f"scores of different trials: table 1 has {len(tables[0])}, table {number} has "
                f"{len(table)}"
            )
        differ = (table[COLUMNS].to_numpy() != tables[0][COLUMNS].to_numpy()).any(axis=1)
        if differ.any():
            row = int(np.flatnonzero(differ)[0])
            one, other = (list(each[COLUMNS].iloc[row]) for each in (tables[0], table))
            raise TrialsError(
                f"scores of different trials: trial {row + 1} is {one} in table 1 and {other} in "
                f"table {number}"
            )
    total: Any = reduce(np.add, (table["score"].to_numpy(float) for table in tables))
    return tables[0][COLUMNS].assign(score=total / len(tables))


def require_strangers(speakers: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse speakers of trials who took part in what the trials are scored with.

    Raises:
        TrialsError: some did; the message names them and `where`.
    """
    both = sorted(set(speakers) & set(known))
    if both:
        raise TrialsError(
            f"{len(both)} speaker(s) of the trials are also in {where}: {first_names(both)}; "
            "their scores would be better than those of strangers"
        )

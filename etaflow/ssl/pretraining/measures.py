"""How much of the phones is in features that were never told of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import mutual_info_score

Floats = npt.NDArray[np.floating[Any]]
CLUSTERS = 100
BLOCK = 2048  # frames compared at a time


def phone_information(features: Floats, phones: npt.NDArray[Any], seed: int = 0) -> float:
    """The share of the phones' entropy that 100 clusters of features tell, 0 to 1.

    HuBERT's phone-normalised mutual information, I(phone; cluster) / H(phone) (arXiv 2106.07447,
    section IV-D). More clusters tell more: compare figures of the same number of frames only.

    Args:
        features: (N, D), at least as many as clusters.
        phones: (N,).
        seed: of k-means.
    """
    fit = MiniBatchKMeans(CLUSTERS, batch_size=10_000, n_init=1, random_state=seed)
    clusters = fit.fit_predict(features.astype(np.float32))
    shares = np.unique(phones, return_counts=True)[1] / len(phones)
    entropy = -(shares * np.log(shares)).sum()
    return float(mutual_info_score(phones, clusters) / entropy)


def neighbour_error(
    features: Floats, phones: npt.NDArray[Any], speakers: npt.NDArray[Any]
) -> float:
    """How often the nearest frame of all other speakers is of another phone, 0 to 1.

    It is what conversion by nearest neighbours does with these features, by cosine.

    Args:
        features: (N, D).
        phones: (N,).
        speakers: (N,), of two or more.
    """
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-8)
    wrong = 0
    for start in range(0, len(units), BLOCK):
        rows = slice(start, start + BLOCK)
        cosines = units[rows] @ units.T
        cosines[speakers[rows, None] == speakers[None]] = -np.inf
        wrong += int((phones[cosines.argmax(axis=1)] != phones[rows]).sum())
    return wrong / len(units)

"""Linear probes: how well a linear classifier reads speakers, phones or words from features.

As in Ruggiero et al. 2025 (arXiv 2505.19273), section 4, a linear support vector machine with
k-fold cross-validation. Folds never part an utterance: frames of one utterance share its channel
and its speaker embedding, so that a probe which trains on some and is asked about others measures
how well it knows the utterance again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import read_table
from etaflow.metrics import bootstrap_interval

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
RECEPTIVE_FIELD = 400  # samples that WavLM's and HuBERT's front end sees a frame
# Of the SVM, for standardised features: wide features then converge within its iterations.
REGULARISATION = 0.01
# Of its dual: 1e-4 takes twice the time and gives the same accuracies, 1e-1 gives others (of the
# embedded default, 256 dimensions).
TOLERANCE = 1e-2


# The table of all probes of an Eta model, one row a figure; rates in per cent.
COLUMNS = [
    "probe",
    "features",
    "unit",
    "accuracy",
    "low",
    "high",
    "chance",
    "majority",
    "n",
    "utterances",
    "classes",
    "speakers_in_fit",
    "weights",
]


def read_probes(path: str | Path) -> pd.DataFrame:
    """Read what `probe_speakers` writes."""
    words = ("probe", "features", "unit", "weights")
    return read_table(path, tuple(name for name in COLUMNS if name not in words))


class ProbeError(ValueError):
    """Data that a probe cannot be made of."""


@dataclass(frozen=True)
class Probe:
    """What a probe found; rates from 0 to 1."""

    accuracy: float  # of the items, each classified by a fit that did not see its utterance
    low: float  # bootstrap 95 % interval over utterances
    high: float
    items: int
    utterances: int
    classes: int
    chance: float  # 1 / classes
    majority: float  # of always saying the most frequent class


def _pairs(labels: Sequence[str], utterances: Sequence[str]) -> dict[str, set[str]]:
    """The utterances that each class occurs in."""
    found: dict[str, set[str]] = {}
    for label, utterance in zip(labels, utterances, strict=True):
        found.setdefault(label, set()).add(utterance)
    return found


def draw_balanced(
    labels: Sequence[str], utterances: Sequence[str], folds: int, limit: int, seed: int = 0
) -> tuple[Indices, list[str]]:
    """Draw the same number of utterances of each class, as many as the smallest class has.

    Args:
        labels: class of each item (N,).
        utterances: that each item is from (N,).
        folds: classes in fewer utterances than this are left out.
        limit: utterances a class at most.
        seed: of the draw.

    Returns:
        The items (M,) of each class in the utterances drawn for it, rising, and the classes left
        out, sorted.
    """
    found = _pairs(labels, utterances)
    rare = sorted(label for label, names in found.items() if len(names) < folds)
    kept = {label: sorted(found[label]) for label in sorted(found) if label not in rare}
    size = min([limit, *map(len, kept.values())])
    generator = np.random.default_rng(seed)
    drawn = {label: set(generator.permutation(names)[:size]) for label, names in kept.items()}
    chosen = [
        item
        for item, (label, utterance) in enumerate(zip(labels, utterances, strict=True))
        if utterance in drawn.get(label, ())
    ]
    return np.asarray(chosen, np.int64), rare


def segment_frames(
    start: Floats, stop: Floats, num_frames: int, sample_rate: int, hop_length: int
) -> tuple[Indices, Indices]:
    """The frames whose centres lie in segments of an utterance: `first` to `last` - 1.

    Args:
        start: seconds (S,).
        stop: seconds (S,); a segment holds its start and not its stop.
        num_frames: of the utterance.
        sample_rate: of the audio, Hz.
        hop_length: samples between frames.

    Returns:
        `first` (S,) and `last` (S,), equal where a segment has no frame.
    """
    edges = np.stack([start, stop]) * sample_rate - RECEPTIVE_FIELD / 2
    # Rounded first: 0.29 s are not quite 4640 samples in floating point.
    frames = np.ceil(np.round(edges) / hop_length).astype(np.int64).clip(0, num_frames)
    return frames[0], frames[1]


def linear_probe(
    features: Floats,
    labels: Sequence[str],
    utterances: Sequence[str],
    folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Cross-validate a linear support vector machine on features standardised by its training part.

    Args:
        features: (N, D).
        labels: class of each item (N,).
        utterances: that each item is from (N,); the items of one are all in one fold.
        folds: 2 or more.
        seed: of the folds, the fit and the bootstrap.

    Raises:
        ProbeError: there are fewer than 2 classes, or a class is in fewer utterances than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    found = _pairs(labels, utterances)
    if len(found) < 2:
        raise ProbeError(f"{len(found)} class(es) to tell apart: a probe needs at least 2")
    smallest = min(sorted(found), key=lambda label: len(found[label]))
    if len(found[smallest]) < folds:
        raise ProbeError(
            f"class {smallest!r} is in {len(found[smallest])} utterance(s), fewer than the "
            f"{folds} folds: take more utterances or fewer folds"
        )
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    names, groups = np.unique(np.asarray(utterances), return_inverse=True)
    classifier = make_pipeline(
        StandardScaler(),
        LinearSVC(C=REGULARISATION, dual=True, tol=TOLERANCE, max_iter=2000, random_state=seed),
    )
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(classifier, features, classes, groups=groups, cv=parts)
    correct = predicted == classes
    hits = np.bincount(groups, correct)
    counts = np.bincount(groups)
    low, high = bootstrap_interval(
        lambda drawn: hits[drawn].sum() / counts[drawn].sum(), len(names), seed=seed
    )
    return Probe(
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        items=len(classes),
        utterances=len(names),
        classes=len(found),
        chance=1 / len(found),
        majority=float(np.bincount(classes).max() / len(classes)),
    )

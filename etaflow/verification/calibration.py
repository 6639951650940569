"""Scores made log-likelihood ratios, with the quality of the recordings taken into account."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.atomic import write_json
from etaflow.store import Embeddings, Floats
from etaflow.trials import TrialsError
from etaflow.verification.scores import trial_places

SMALLEST_CHANGE = 1e-6  # of a feature that is to say something, as a share of its largest value


def _duration(
    utterances: list[str], _: Embeddings, manifest: pd.DataFrame, max_seconds: float | None
) -> Floats:
    rows = manifest.set_index("utterance_id").loc[utterances]
    seconds = rows["num_samples"].to_numpy(float) / rows["sample_rate"].to_numpy(float)
    return np.log(seconds if max_seconds is None else np.minimum(seconds, max_seconds))


def _norm(
    utterances: list[str], embeddings: Embeddings, _: pd.DataFrame, __: float | None
) -> Floats:
    return np.linalg.norm(embeddings.rows(utterances), axis=1).astype(np.float64)


# Of each utterance; and which figures of a pair are made of them.
Measure = Callable[[list[str], Embeddings, pd.DataFrame, float | None], Floats]
QUALITY: dict[str, tuple[Measure, tuple[str, ...]]] = {
    "duration": (_duration, ("min",)),
    "norm": (_norm, ("min", "mean")),
}


def pair_quality(
    names: Sequence[str],
    trials: pd.DataFrame,
    embeddings: Embeddings,
    manifest: pd.DataFrame,
    max_seconds: float | None = None,
) -> pd.DataFrame:
    """Quality measures of N trials, a column each (Thienpondt et al. 2020, arXiv 2010.11255).

    Args:
        names: of `QUALITY`: `duration` is the logarithm of the seconds that were heard of
            the shorter recording; `norm` the least and the mean length of the two embeddings,
            which an encoder makes shorter where it hears less of a speaker.
        trials: N of them.
        embeddings: of their utterances.
        manifest: of their corpus.
        max_seconds: that the embeddings are of, from the beginning of each; None: all of it.

    Raises:
        TrialsError: another name.
        StoreError: an utterance has no embedding.
    """
    if unknown := sorted(set(names) - set(QUALITY)):
        raise TrialsError(f"no quality measure {unknown[0]!r}; there are {', '.join(QUALITY)}")
    utterances, places = trial_places(trials)
    columns = {}
    for name in names:
        measure, figures = QUALITY[name]
        of_pairs = measure(utterances, embeddings, manifest, max_seconds)[places]
        for figure in figures:
            columns[f"{name}_{figure}"] = getattr(np, figure)(of_pairs, axis=1)
    return pd.DataFrame(columns, index=range(len(trials)))


@dataclass(frozen=True)
class Calibration:
    """An affine map from the score of a trial, and its quality, to a log-likelihood ratio.

    Attributes:
        features: `score` first, then quality measures.
        weights: one a feature.
        bias: added to the weighted sum.
        fitted_on: what it was fitted on, as JSON.
    """

    features: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    fitted_on: Mapping[str, Any]

    @classmethod
    def fit(
        cls,
        scores: npt.ArrayLike,
        labels: npt.ArrayLike,
        quality: pd.DataFrame,
        fitted_on: Mapping[str, Any],
    ) -> "Calibration":
        """Logistic regression in which both classes weigh the same, so that its logits are LLRs.

        Args:
            scores: (N,) of trials of other speakers than will be scored.
            labels: (N,) 1 for target, 0 for non-target trials.
            quality: N rows, from `pair_quality`; may have no columns.
            fitted_on: the name of the trials and the like; their numbers are added.

        Raises:
            TrialsError: trials of one class only, or a feature that is not finite or does not
                vary.
        """
        from sklearn.linear_model import LogisticRegression

        inputs = _inputs(scores, quality)
        targets = np.asarray(labels)
        counts = {
            name: int((targets == k).sum()) for k, name in enumerate(("nontargets", "targets"))
        }
        if not all(counts.values()):
            raise TrialsError(f"calibration needs trials of both classes, there are {counts}")
        mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
        # Lengths of embeddings that are scaled to 1 differ by the rounding of float32.
        varies = deviation > SMALLEST_CHANGE * np.abs(inputs).max(axis=0)
        names = ("score", *map(str, quality.columns))
        bad = ~np.isfinite(inputs).all(axis=0) | ~varies
        if bad.any():
            raise TrialsError(
                f"calibration by {names[int(np.argmax(bad))]}: it is not finite, or the same in "
                "all trials"
            )
        # Of scaled features the penalty is the same; it is small beside thousands of trials, and
        # keeps the weights finite where a score parts the classes without error.
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit((inputs - mean) / deviation, targets)
        weights = model.coef_[0] / deviation
        bias = float(model.intercept_[0] - weights @ mean)
        return cls(names, tuple(map(float, weights)), bias, {**fitted_on, **counts})

    def llrs(self, scores: npt.ArrayLike, quality: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Natural log-likelihood ratios (N,) of trials.

        Raises:
            TrialsError: other quality measures than in the fit.
        """
        given = ("score", *map(str, quality.columns))
        if given != self.features:
            raise TrialsError(f"calibration was fitted on {self.features}, not on {given}")
        return np.asarray(_inputs(scores, quality) @ np.array(self.weights) + self.bias)

    def write(self, path: str | Path) -> None:
        """Write JSON, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> "Calibration":
        """Read what `write` wrote.

        Raises:
            TrialsError: it is something else.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            features, weights = tuple(stored["features"]), tuple(map(float, stored["weights"]))
            if len(features) != len(weights):
                raise ValueError(f"{len(features)} features, {len(weights)} weights")
            return cls(features, weights, float(stored["bias"]), dict(stored["fitted_on"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TrialsError(f"{path}: no calibration: {error!r}") from error


def _inputs(scores: npt.ArrayLike, quality: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.column_stack([np.asarray(scores, np.float64), quality.to_numpy(np.float64)])

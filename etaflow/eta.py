"""Eta-WavLM: the part of a feature that is linear in the speaker, fitted and removed.

Ruggiero et al. 2025 (arXiv 2505.19273): S = D^T A + 1 b^T (eq. 1), eta = s - (d^T A* + b*) (eq. 5),
where the rows of S are frames and d is the utterance's speaker embedding after PCA.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from etaflow.atomic import atomic_file, write_json
from etaflow.store import Embeddings, FeatureStore

Array = npt.NDArray[np.float64]


# Relative precision of speaker embeddings, which encoders give in float32.
PRECISION = float(np.finfo(np.float32).eps)


class EtaError(ValueError):
    """A fit that is not determined, or features that do not belong to the model."""


def _standardised(counts: Array, vectors: Array) -> tuple[Array, Array, Array]:
    """The weighted design matrix (U, P), and the centre and scale (P,) of the speaker vectors."""
    total = counts.sum()
    centre = counts @ vectors / total
    scale = np.sqrt(counts @ (vectors - centre) ** 2 / total)
    # What varies by no more than embeddings are rounded by is constant.
    constant = scale <= PRECISION * np.sqrt(counts @ vectors**2 / total)
    scale[constant] = 1.0
    design = np.where(constant, 0.0, (vectors - centre) / scale)
    return design * np.sqrt(counts / total)[:, None], centre, scale


def _with_ridge(matrix: Array, ridge: float) -> Array:
    """The rows that make the least squares of `matrix` a ridge regression."""
    extra = np.sqrt(ridge) * np.eye(matrix.shape[1])
    return np.concatenate([matrix, extra]) if ridge > 0 else matrix


def condition_number(frame_counts: Array, speaker_vectors: Array, ridge: float = 0.0) -> float:
    """Of the matrix that `fit` solves with: how far rounding in the features is magnified."""
    counts, vectors = np.asarray(frame_counts, float), np.asarray(speaker_vectors, float)
    return float(np.linalg.cond(_with_ridge(_standardised(counts, vectors)[0], ridge)))


def fit(
    frame_sums: Array, frame_counts: Array, speaker_vectors: Array, ridge: float = 0.0
) -> tuple[Array, Array]:
    """Fit A and b over all frames, from each utterance's sum and number of frames.

    The speaker vector is one for all frames of an utterance, so the least squares over frames is
    the least squares over utterance means weighted by their number of frames. It is solved by QR
    in float64 on standardised columns, which keeps badly scaled speaker vectors harmless.

    Args:
        frame_sums: (U, Q), sum of the frames of each utterance.
        frame_counts: (U,), number of frames of each utterance, all positive.
        speaker_vectors: (U, P).
        ridge: added to the normal equations of the standardised vectors, per frame (0 or more).

    Returns:
        A (P, Q) and b (Q,).

    Raises:
        EtaError: without ridge, fewer than P + 1 distinct speaker vectors or linearly dependent
            ones; values that are not finite.
    """
    sums = np.asarray(frame_sums, np.float64)
    counts = np.asarray(frame_counts, np.float64)
    vectors = np.asarray(speaker_vectors, np.float64)
    if not (np.isfinite(sums).all() and np.isfinite(vectors).all() and (counts > 0).all()):
        raise EtaError("frame sums, counts and speaker vectors must be finite, counts positive")
    unknowns = vectors.shape[1] + 1
    distinct = len(np.unique(vectors, axis=0))
    if ridge == 0 and distinct < unknowns:
        raise EtaError(
            f"{distinct} distinct speaker vectors for {unknowns} unknowns a dimension "
            f"({vectors.shape[1]} components and the bias): at least {unknowns} are needed. "
            "Fit on more utterances or set a smaller `pca`."
        )
    design, centre, scale = _standardised(counts, vectors)
    mean = sums.sum(axis=0) / counts.sum()
    target = (sums / counts[:, None] - mean) * np.sqrt(counts / counts.sum())[:, None]
    design = _with_ridge(design, ridge)
    target = np.pad(target, ((0, len(design) - len(target)), (0, 0)))
    q, r = np.linalg.qr(design)
    singular = np.linalg.svd(r, compute_uv=False)
    if singular[-1] <= singular[0] * PRECISION:
        raise EtaError(
            "the speaker vectors are linearly dependent: set a smaller `pca` or a `ridge` above 0"
        )
    coefficients = np.linalg.solve(r, q.T @ target) / scale[:, None]
    return coefficients, mean - centre @ coefficients


def explained_variance(
    coefficients: Array,
    bias: Array,
    frame_sums: Array,
    frame_square_sums: Array,
    frame_counts: Array,
    speaker_vectors: Array,
) -> tuple[Array, float]:
    """R^2 over all frames, per dimension (Q,) and in all, without reading the frames again."""
    counts = np.asarray(frame_counts, np.float64)[:, None]
    predicted = np.asarray(speaker_vectors, np.float64) @ coefficients + bias
    squares = frame_square_sums.sum(axis=0)
    residual = (
        squares
        - 2 * (predicted * frame_sums).sum(axis=0)
        + (counts * predicted * predicted).sum(axis=0)
    )
    total = squares - frame_sums.sum(axis=0) ** 2 / counts.sum()
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, 1 - residual / safe, 0.0), float(1 - residual.sum() / total.sum())


def draw_frames(
    utterance_id: str, num_frames: int, count: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """At most `count` random frames of an utterance, rising; the same whatever else is drawn.

    The paper fits on such a draw (its L = 100).
    """
    generator = np.random.default_rng([seed, *utterance_id.encode()])
    return np.sort(generator.permutation(num_frames)[:count])


@dataclass(frozen=True)
class Pca:
    """Principal components of speaker embeddings."""

    mean: Array  # (V,)
    components: Array  # (P, V)
    explained_variance_ratio: Array  # (P,)

    @classmethod
    def fit(cls, embeddings: Array, size: int) -> "Pca":
        """Fit on embeddings (U, V) with scikit-learn's exact solver.

        Raises:
            EtaError: `size` is more than U or V allow, or the embeddings span less.
        """
        from sklearn.decomposition import PCA

        count, dim = embeddings.shape
        if not 1 <= size <= min(count, dim):
            raise EtaError(
                f"pca: {size} components asked of {count} embeddings of {dim} dimensions; "
                f"at most {min(count, dim)}"
            )
        pca = PCA(size, svd_solver="full").fit(np.asarray(embeddings, np.float64))
        spanned = int((pca.explained_variance_ratio_ > PRECISION**2).sum())
        if spanned < size:
            raise EtaError(
                f"pca: {size} components asked of embeddings that span only {spanned} dimensions"
            )
        return cls(pca.mean_, pca.components_, pca.explained_variance_ratio_)

    def transform(self, embeddings: Array) -> Array:
        """(…, V) to (…, P)."""
        return (np.asarray(embeddings, np.float64) - self.mean) @ self.components.T

    def save(self, path: str | Path) -> None:
        """Write safetensors, whole or not at all."""
        with atomic_file(path) as part:
            save_file({key: np.ascontiguousarray(value) for key, value in vars(self).items()}, part)

    @classmethod
    def load(cls, path: str | Path) -> "Pca":
        """Read what `save` wrote."""
        return cls(**load_file(path))


@dataclass(frozen=True)
class EtaModel:
    """A fitted Eta model: takes the speaker out of features, or gives the speaker's part."""

    coefficients: Array  # A, (P, Q)
    bias: Array  # b, (Q,)
    mean_component: Array  # (Q,), the speaker component averaged over the training frames
    pca: Pca | None
    config: dict[str, Any] = field(default_factory=dict)

    def speaker_component(self, speaker_embedding: npt.ArrayLike) -> Array:
        """d^T A + b (Q,) of an embedding (V,) as the speaker encoder gives it."""
        vector = np.asarray(speaker_embedding, np.float64)
        expected = (self.pca.components if self.pca else self.coefficients.T).shape[1]
        if vector.shape != (expected,):
            raise EtaError(f"speaker embedding of shape {vector.shape}, expected ({expected},)")
        reduced = self.pca.transform(vector) if self.pca else vector
        return np.asarray(reduced @ self.coefficients + self.bias)

    def remove_speaker(
        self, features: npt.NDArray[np.floating[Any]], speaker_embedding: npt.ArrayLike
    ) -> npt.NDArray[np.float32]:
        """Eta (T, Q) float32 of features (T, Q): the speaker's component subtracted."""
        if features.ndim != 2 or features.shape[1] != len(self.bias):
            raise EtaError(f"features of shape {features.shape}, expected (T, {len(self.bias)})")
        return (features - self.speaker_component(speaker_embedding)).astype(np.float32)

    def check_features(self, facts: Mapping[str, Any]) -> None:
        """Raise `EtaError` unless model, revision, layer … in `facts` are what was fitted on."""
        for key, value in facts.items():
            if self.config.get(key) != value:
                raise EtaError(
                    f"this Eta model was fitted on {key} {self.config.get(key)!r}, "
                    f"the features have {value!r}"
                )

    def _arrays(self) -> dict[str, Array]:
        arrays = {name: getattr(self, name) for name in ("coefficients", "bias", "mean_component")}
        if self.pca:
            arrays |= {f"pca.{name}": value for name, value in vars(self.pca).items()}
        return arrays

    @property
    def digest(self) -> str:
        """BLAKE2b-64 of the fitted numbers, hexadecimal: tells one fit from another."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self._arrays().items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `eta.safetensors` and `config.json`."""
        directory, arrays = Path(directory), self._arrays()
        with atomic_file(directory / "eta.safetensors") as part:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, part)
        write_json(directory / "config.json", self.config)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "EtaModel":
        """Read what `save_pretrained` wrote.

        Args:
            source: its folder, or a bundle that holds it as `eta/`; or, as text, a repository of
                the Hugging Face Hub that is one of these: `owner/name` or `owner/name@revision`.

        Raises:
            HubError: there is neither such a folder nor such a repository.
        """
        # Imported here: a fit has no use for the Hub.
        from etaflow.hub import pretrained_folder

        names = ("config.json", "eta.safetensors")
        folder = pretrained_folder(source, [*names, *(f"eta/{name}" for name in names)])
        if (folder / "eta").is_dir():
            folder = folder / "eta"
        arrays = load_file(folder / "eta.safetensors")
        parts: Sequence[str] = ("mean", "components", "explained_variance_ratio")
        pca = (
            Pca(**{name: arrays[f"pca.{name}"] for name in parts}) if "pca.mean" in arrays else None
        )
        return cls(
            arrays["coefficients"],
            arrays["bias"],
            arrays["mean_component"],
            pca,
            json.loads((folder / "config.json").read_text(encoding="utf-8")),
        )


class EtaFeatures(FeatureStore):
    """Features read without each utterance's speaker component (equation 5).

    The sums of the tables stay those of the features as they are stored.
    """

    def __init__(self, paths: Sequence[str | Path], eta: EtaModel, embeddings: Embeddings) -> None:
        """Open the shards.

        Args:
            paths: of the features.
            eta: fitted on the same kind of features and embeddings.
            embeddings: of all utterances of the shards.

        Raises:
            EtaError: the model was fitted on other features or embeddings.
            StoreError: a shard cannot be read, or an utterance has no embedding.
        """
        super().__init__(paths)
        facts = ("model", "revision", "layer", "normalize")
        eta.check_features({name: getattr(self.meta, name) for name in facts})
        eta.check_features({"encoder": embeddings.encoder})
        self._eta = eta
        rows = embeddings.rows(self.utterance_ids)
        self._speakers = dict(zip(self.utterance_ids, rows, strict=True))

    def read(
        self, utterance_id: str, start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Eta, frames `start` to `stop` of an utterance (T, D); see `FeatureStore.read`."""
        features = super().read(utterance_id, start, stop)
        return self._eta.remove_speaker(features, self._speakers[utterance_id])

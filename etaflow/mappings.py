"""Voice conversion by one affine map of features, fitted from a source and a target's references.

Unlike matching, a map keeps every source frame apart, and once fitted it is applied to any later
part of the same source.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from etaflow.knn import match

MAX_PAIRED_FRAMES = 8192  # of each side in LinearVC; the published code has the same limit
FRAMES_BEYOND_BLOCK = 4  # a covariance in MKL-VC needs that many more than dimensions, as published
FRAME_CHUNK = 8192  # frames that are held in float64 at a time

# Relative precision of features, which encoders give in float32.
PRECISION = torch.finfo(torch.float32).eps


class MappingError(ValueError):
    """Features that no map can be fitted from, or that do not belong to a map."""


@dataclass(frozen=True)
class AffineMap:
    """x -> x W + b, for frames x as rows.

    Attributes:
        weight: W, (D, D) float32.
        bias: b, (D,) float32.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Map frames (T, D), of any floating type, to (T, D) float32.

        Each frame is mapped by itself: chunks give what the whole gives.

        Raises:
            MappingError: the features have another dimension.
        """
        if features.ndim != 2 or features.shape[1] != len(self.bias):
            raise MappingError(
                f"the map is of {len(self.bias)} dimensions, the features are "
                f"{tuple(features.shape)}: give frames (T, {len(self.bias)}) of the same encoder"
            )
        return features.float() @ self.weight + self.bias


def _check(source: Tensor, target: Tensor, minimum: int) -> None:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise MappingError(
            f"source {tuple(source.shape)} and target {tuple(target.shape)} must be (T, D) and "
            "(N, D): take both from the same layer of the same encoder"
        )
    for name, features in (("source", source), ("target", target)):
        if len(features) < minimum:
            raise MappingError(
                f"the {name} has {len(features)} frame(s), the fit needs {minimum}: "
                "give a longer recording"
            )
        if not features.isfinite().all():
            raise MappingError(
                f"the {name} has features that are not finite: look for what is wrong with its "
                "recording, or encode it in float32"
            )


def _spread(features: Tensor) -> Tensor:
    """At most `MAX_PAIRED_FRAMES` frames, evenly spread so that no recording is left out."""
    size = len(features)
    if size <= MAX_PAIRED_FRAMES:
        return features
    rows = torch.arange(MAX_PAIRED_FRAMES, device=features.device) * size // MAX_PAIRED_FRAMES
    return features[rows]


def fit_linear(source: Tensor, target: Tensor, ridge: float = 100.0) -> AffineMap:
    """Fit LinearVC: least squares from source frames to their nearest target frames.

    Kamper et al., "LinearVC: Linear transformations of self-supervised features through the lens of
    voice conversion", Interspeech 2025 (arXiv 2506.01510): W = argmin ||Y - X W||², where row t of Y
    is the target frame nearest to row t of X by cosine similarity.

    Args:
        source: (T, D), two frames or more. Of more than 8192, that many are used, evenly spread.
        target: (N, D), likewise.
        ridge: weight of the prior.

    Returns:
        The map.

    Raises:
        MappingError: fewer than two frames, values that are not finite, or different dimensions.
    """
    _check(source, target, minimum=2)
    source, target = _spread(source), _spread(target)
    frames = source.double()
    shift = match(source.float(), target.float(), topk=1).double() - frames
    centre, mean_shift = frames.mean(dim=0), shift.mean(dim=0)
    frames = frames - centre
    covariance = frames.T @ frames
    scale = covariance.diagonal().mean() / len(frames)
    covariance.diagonal().add_(ridge * scale)
    change = torch.linalg.solve(covariance, frames.T @ (shift - mean_shift))
    weight = change + torch.eye(len(centre), dtype=change.dtype, device=change.device)
    return AffineMap(weight.float(), (mean_shift - centre @ change).float())


def _covariance(features: Tensor, mean: Tensor, blocks: Tensor) -> Tensor:
    """The covariances (B, K, K) of the dimensions in each row of `blocks` (B, K), in float64."""
    total = mean.new_zeros(*blocks.shape, blocks.shape[1])
    for chunk in features.split(FRAME_CHUNK):
        centred = (chunk.double() - mean)[:, blocks]
        total += torch.einsum("tbi,tbj->bij", centred, centred)
    return total / (len(features) - 1)


def _compose(directions: Tensor, values: Tensor) -> Tensor:
    """The symmetric matrices (B, K, K) of these eigenvectors and eigenvalues (B, K)."""
    return (directions * values[:, None, :]) @ directions.mT


def _transport(source: Tensor, target: Tensor, rounding: Tensor) -> Tensor:
    """T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2, for covariances A and B (B, K, K).

    Directions in which A is no more than the `rounding` (B,) of the features are left as they are.
    """
    variance, directions = torch.linalg.eigh(source)
    seen = variance > torch.maximum(PRECISION * variance[:, -1], rounding)[:, None]
    deviation = torch.where(seen, variance, 0.0).sqrt()
    root = _compose(directions, deviation)
    inverse = _compose(directions, torch.where(seen, 1 / deviation, 0.0))
    middle_variance, middle_directions = torch.linalg.eigh(root @ target @ root)
    middle = _compose(middle_directions, middle_variance.clamp_min(0).sqrt())
    return inverse @ middle @ inverse + _compose(directions, (~seen).to(variance.dtype))


def fit_transport(source: Tensor, target: Tensor, block_size: int = 2) -> AffineMap:
    """Fit MKL-VC: the optimal transport between Gaussians, in blocks of dimensions.

    Lobashev et al., "Training-free voice conversion with factorized optimal transport", Interspeech
    2025 (arXiv 2506.09709). Dimensions are ordered by the source's deviation, largest first, and
    cut into blocks. Those of a block are taken for Gaussians N(m, A) in the source and N(n, B) in
    the target, independent of the other blocks. The Monge-Kantorovich linear map is
    x -> n + (x - m) T with T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2.

    Unlike the published code, a last block of one dimension is mapped too, and a direction in which
    the source does not vary is only shifted, where that code divides by about nothing.

    Args:
        source: (T, D), frames of any number from `block_size` + 4.
        target: (N, D), likewise.
        block_size: K, dimensions a block, 1 or more; the fewer, the less speech the covariances need.

    Returns:
        The map; its weight is symmetric and, unless the target does not vary in some direction,
        positive definite.

    Raises:
        MappingError: too few frames for blocks of that size, values that are not finite, different
            dimensions.
    """
    if block_size < 1:
        raise MappingError(f"blocks of {block_size} dimensions: give 1 or more")
    _check(source, target, minimum=block_size + FRAMES_BEYOND_BLOCK)
    mean = source.mean(dim=0, dtype=torch.float64)
    target_mean = target.mean(dim=0, dtype=torch.float64)
    size = len(mean)
    single = torch.arange(size, device=source.device)[:, None]
    variance = _covariance(source, mean, single).flatten()
    order = variance.argsort(descending=True, stable=True)
    whole = size - size % block_size
    weight = mean.new_zeros(size, size)
    for blocks in (order[:whole].view(whole // block_size, block_size), order[whole:][None]):
        if blocks.numel():
            weight[blocks[:, :, None], blocks[:, None, :]] = _transport(
                _covariance(source, mean, blocks),
                _covariance(target, target_mean, blocks),
                (PRECISION * mean[blocks]).square().amax(dim=1),
            )
    return AffineMap(weight.float(), (target_mean - mean @ weight).float())

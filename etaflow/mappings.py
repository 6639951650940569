"""Voice conversion by one affine map of features, fitted from a source and a target's references.

Unlike matching, a map keeps every source frame apart, and once fitted it is applied to any later
part of the same source.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from etaflow.knn import match

MAX_PAIRED_FRAMES = 8192  # of each side in LinearVC; the published code has the same limit
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


def _roots(covariance: Tensor, precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Square root, its pseudo-inverse, and the projector on the directions of no variance."""
    variance, directions = torch.linalg.eigh(covariance)
    smallest = torch.maximum(PRECISION * variance[:, -1:], precision[:, None])
    seen = variance > smallest
    deviation = torch.where(seen, variance, 0.0).sqrt()
    inverse = torch.where(seen, 1 / deviation, 0.0)

    def compose(values: Tensor) -> Tensor:
        return (directions * values[:, None, :]) @ directions.mT

    return compose(deviation), compose(inverse), compose((~seen).to(variance.dtype))


def _transport(source: Tensor, target: Tensor, precision: Tensor) -> Tensor:
    """The maps (B, K, K) between centred Gaussians of these covariances (B, K, K)."""
    root, inverse, unseen = _roots(source, precision)
    middle, _, _ = _roots(root @ target @ root, torch.zeros_like(precision))
    return inverse @ middle @ inverse + unseen


def fit_transport(source: Tensor, target: Tensor, block_size: int = 2) -> AffineMap:
    """Fit MKL-VC: the optimal transport between Gaussians, block by block of dimensions."""
    _check(source, target, minimum=block_size + 4)
    mean = source.mean(dim=0, dtype=torch.float64)
    target_mean = target.mean(dim=0, dtype=torch.float64)
    size = len(mean)
    single = torch.arange(size, device=source.device)[:, None]
    variance = _covariance(source, mean, single).flatten()
    order = variance.argsort(descending=True, stable=True)
    whole = size // block_size * block_size
    weight = torch.zeros(size, size, dtype=torch.float64, device=source.device)
    for blocks in (order[:whole].view(-1, block_size), order[whole:][None]):
        if blocks.numel():
            precision = (PRECISION * mean[blocks]).square().amax(dim=1)
            weight[blocks[:, :, None], blocks[:, None, :]] = _transport(
                _covariance(source, mean, blocks),
                _covariance(target, target_mean, blocks),
                precision,
            )
    return AffineMap(weight.float(), (target_mean - mean @ weight).float())

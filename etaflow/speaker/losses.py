"""Losses of speaker encoders: M utterances each of N speakers in, a scalar out."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.nnet.losses import AdditiveAngularMargin, AngularMargin
from torch import nn

SCALE, OFFSET = 10.0, -5.0  # of cosines, at first (arXiv 1710.10467, section 2.1)
SLOWER = 0.01  # factor on the gradients of both in GE2E (section 3)
SMALLEST_SCALE = 1e-6
# Embeddings and centroids shorter than this count as this long: gradients stay within float32.
SHORTEST = 1e-6
MARGINS = {"am_softmax": 0.3, "aam_softmax": 0.2}


class Criterion(nn.Module):
    """A loss of embeddings (N, M, V), a speaker a row, and the speakers' labels (N,).

    A speaker may stand in several rows. Computed in float32 in any precision of the training: a
    cosine of bfloat16 is off by up to 0.004.

    Attributes:
        fewest: rows that a batch of shuffled epochs needs. Where an epoch ends within a batch, two
            rows may be one speaker; three are never.
    """

    fewest = 1

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss.

        Raises:
            ValueError: shapes that do not fit, or a batch that lacks what the loss compares.
        """
        if embeddings.ndim != 3 or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: "
                "expected (N, M, V) and (N,)"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss(embeddings.float(), labels)

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of the right shape, in float32."""
        raise NotImplementedError


class ScaledCosine(Criterion):
    """A loss of w cos + b, with w > 0 and b learnt."""

    fewest = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(SCALE))
        self.offset = nn.Parameter(torch.tensor(OFFSET))

    def logits(self, cosines: torch.Tensor) -> torch.Tensor:
        """Of any shape."""
        # In place: with a clamped copy, a scale that came to 0 would never get a gradient again.
        with torch.no_grad():
            self.scale.clamp_(min=SMALLEST_SCALE)
        return self.scale * cosines + self.offset


class GE2E(ScaledCosine):
    """Generalised end-to-end loss, softmax variant (arXiv 1710.10467, equations 5, 6 and 9).

    -log of the softmax over speakers of w cos(utterance, centroid) + b, at the utterance's own
    speaker, whose centroid leaves the utterance out; the mean over utterances. Further rows of its
    own speaker are left out of the softmax.
    """

    def __init__(self) -> None:
        super().__init__()
        # AdamW does not see the factor; the clipped norm does.
        self.scale.register_hook(lambda gradient: SLOWER * gradient)
        self.offset.register_hook(lambda gradient: SLOWER * gradient)

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `Criterion`."""
        rows, utterances = embeddings.shape[:2]
        if utterances < 2:
            raise ValueError(
                "ge2e: one utterance a speaker; the centroid that leaves it out needs another one"
            )
        if len(labels.unique()) < 2:
            raise ValueError("ge2e: a batch of one speaker only; it needs two to tell apart")
        vectors = F.normalize(embeddings, dim=2, eps=SHORTEST)
        sums = vectors.sum(dim=1)
        centroids = F.normalize(sums, dim=1, eps=SHORTEST)
        without = F.normalize(sums[:, None] - vectors, dim=2, eps=SHORTEST)
        own = torch.eye(rows, dtype=torch.bool, device=labels.device)
        cosines = torch.where(
            own[:, None], (vectors * without).sum(dim=2, keepdim=True), vectors @ centroids.T
        )
        again = (labels[:, None] == labels) & ~own
        logits = self.logits(cosines).masked_fill(again[:, None], -math.inf)
        targets = torch.arange(rows, device=labels.device).repeat_interleave(utterances)
        return F.cross_entropy(logits.flatten(0, 1), targets)


class BCEPairs(ScaledCosine):
    """Binary cross-entropy of w cos + b over all pairs of utterances in the batch.

    Half the mean over pairs of one speaker and half that over pairs of two, however many of each
    there are.
    """

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `Criterion`."""
        vectors = F.normalize(embeddings.flatten(0, 1), dim=1, eps=SHORTEST)
        owners = labels.repeat_interleave(embeddings.shape[1])
        first, second = torch.triu_indices(len(owners), len(owners), 1, device=labels.device)
        same = owners[first] == owners[second]
        if not same.any() or same.all():
            found = "one speaker" if len(same) and same.all() else "one utterance a speaker"
            raise ValueError(
                f"bce_pairs: a batch of {found} only; it needs pairs of one and of two speakers"
            )
        logits = self.logits((vectors @ vectors.T)[first, second])
        return (F.softplus(-logits[same]).mean() + F.softplus(logits[~same]).mean()) / 2


class MarginSoftmax(Criterion):
    """Softmax over all training speakers of scaled cosines, the true one made harder by a margin.

    AM-softmax, s (cos θ - m): arXiv 1801.05599. AAM-softmax (ArcFace), s cos(θ + m): arXiv
    1801.07698; beyond θ = π - m, where that would rise again, s (cos θ - m sin m) instead.
    """

    def __init__(self, margin: AngularMargin, dim: int, num_speakers: int) -> None:
        super().__init__()
        self.margin = margin
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(num_speakers, dim)))

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `Criterion`."""
        vectors = F.normalize(embeddings.flatten(0, 1), dim=1, eps=SHORTEST)
        cosines = vectors @ F.normalize(self.weight, dim=1, eps=SHORTEST).T
        owners = labels.repeat_interleave(embeddings.shape[1])
        targets = F.one_hot(owners, len(self.weight)).float()
        return F.cross_entropy(self.margin(cosines, targets), owners)


def make_criterion(settings: Mapping[str, Any], dim: int, num_speakers: int) -> Criterion:
    """The loss that a config names.

    Args:
        settings: `kind` (`ge2e`, `bce_pairs`, `am_softmax` or `aam_softmax`); for the last two also
            `margin` (0.3, and 0.2 radians) and `scale` (30).
        dim: V, of the embeddings.
        num_speakers: in training; labels are 0 to `num_speakers` - 1.

    Raises:
        ValueError: an unknown kind or setting, or one out of range.
    """
    kind, own = settings["kind"], {k: v for k, v in settings.items() if k != "kind"}
    if kind not in ("ge2e", "bce_pairs", *MARGINS):
        raise ValueError(f"loss {kind!r}: known are ge2e, bce_pairs, {', '.join(MARGINS)}")
    unknown = own.keys() - ({"margin", "scale"} if kind in MARGINS else set())
    if unknown:
        raise ValueError(f"loss {kind}: no such setting: {', '.join(sorted(unknown))}")
    if kind not in MARGINS:
        return GE2E() if kind == "ge2e" else BCEPairs()
    margin, scale = own.get("margin", MARGINS[kind]), own.get("scale", 30.0)
    if not (0 <= margin < 1 and scale > 0):
        raise ValueError(f"loss {kind}: margin {margin} is not in [0, 1), or scale {scale} not > 0")
    function = AngularMargin if kind == "am_softmax" else AdditiveAngularMargin
    return MarginSoftmax(function(margin, scale), dim, num_speakers)

"""Matching by nearest neighbours, and prematching.

Baas et al., "Voice conversion with just nearest neighbors", Interspeech 2023 (arXiv 2305.18975).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from etaflow.products import linear

# Frames a side of the block of similarities that is held at a time: 16 MB, which a processor's
# cache can hold. Larger blocks were slower, smaller ones too.
BLOCK = 2048
WEIGHTINGS = ("uniform", "distance")
ROUNDING = 1e-6  # what float32 leaves of the cosine distance of equal frames


class MatchError(ValueError):
    """A query or a pool that cannot be matched."""


def _inverse_norms(frames: Tensor, what: str) -> Tensor:
    """1 / |frame| (N,) float32, and 0 for a frame of zeros, whose cosine is then 0 with all."""
    if frames.ndim != 2:
        raise MatchError(f"the {what} is {tuple(frames.shape)}; frames (T, D) are needed")
    parts = [block.float().norm(dim=-1) for block in frames.split(BLOCK)]
    norms = torch.cat(parts) if parts else frames.new_empty(0, dtype=torch.float32)
    finite = norms.isfinite()  # NaN and infinity come through the norm: no pass of their own
    if not finite.all():
        wrong = torch.nonzero(~finite)[:, 0]
        raise MatchError(
            f"{len(wrong)} of {len(frames)} frames of the {what} hold NaN or infinity, the first "
            f"is frame {int(wrong[0])}"
        )
    return torch.where(norms > 0, 1 / norms, 0)


def _blocks(length: int, start: int = 0) -> Iterator[slice]:
    for first in range(start, length, BLOCK):
        yield slice(first, min(first + BLOCK, length))


def can_prematch(num_frames: Sequence[int] | npt.NDArray[np.integer], topk: int) -> bool:
    """Whether each of a speaker's utterances leaves `topk` frames or more in the others.

    Args:
        num_frames: of the speaker's utterances.
        topk: neighbours a frame, 1 or more.
    """
    return 1 <= topk <= sum(num_frames) - max(num_frames, default=0)


class _Nearest:
    """The `topk` most similar frames found so far, for each of some queries."""

    def __init__(self, queries: int, topk: int, device: torch.device) -> None:
        self.similarity = torch.full((queries, topk), -torch.inf, device=device)
        self.index = torch.zeros((queries, topk), dtype=torch.long, device=device)

    def add(self, rows: slice, similarity: Tensor, columns: slice) -> None:
        """Look among the similarities (R, C) of some queries to some frames."""
        topk = self.index.shape[1]
        found, place = similarity.topk(min(topk, similarity.shape[1]), dim=-1)
        found = torch.cat([self.similarity[rows], found], dim=-1)
        place = torch.cat([self.index[rows], place + columns.start], dim=-1)
        self.similarity[rows], kept = found.topk(topk, dim=-1)
        self.index[rows] = place.gather(1, kept)


class Pool:
    """Reference frames to match queries against, one after another.

    Frames are not copied: beside them it holds a number a frame. A match holds a block of
    similarities at a time, whatever the sizes of query and pool.
    """

    def __init__(self, frames: Tensor, values: Tensor | None = None) -> None:
        """Measure the frames once.

        Args:
            frames: (N, D), float32 or float16, on any device. Products are float32: rounded to
                float16, neighbours would be others. A frame of zeros is similar to none (0).
            values: (N, E) to average instead of the frames themselves.

        Raises:
            MatchError: a frame holds NaN or infinity, or `values` are not N.
        """
        self.frames, self.values = frames, frames if values is None else values
        self._scale = _inverse_norms(frames, "pool")
        if len(self.values) != len(frames):
            raise MatchError(f"{len(self.values)} values for a pool of {len(frames)} frames")

    def __len__(self) -> int:
        return len(self.frames)

    def _similarity(self, query: Tensor, columns: slice) -> Tensor:
        """Cosines (R, C) of unit vectors (R, D) and some frames."""
        products = linear(query[None], self.frames[columns].float(), None)[0]
        # Scaling the products instead of the frames saves a normalised copy of the pool.
        return products.mul_(self._scale[columns])

    @torch.no_grad()
    def neighbours(self, query: Tensor, topk: int = 4) -> tuple[Tensor, Tensor]:
        """The nearest frames by cosine similarity, the most similar first.

        Args:
            query: (T, D), on the pool's device.
            topk: neighbours, 1 to N.

        Returns:
            Similarities (T, topk) float32, in [-1, 1] up to rounding, and indices (T, topk).

        Raises:
            MatchError: the pool has fewer than `topk` frames or another D, or a query frame holds
                NaN or infinity.
        """
        if not 1 <= topk <= len(self):
            raise MatchError(f"{topk} neighbours asked of a pool of {len(self)} frames")
        scale = _inverse_norms(query, "query")
        if query.shape[1] != self.frames.shape[1]:
            raise MatchError(
                f"a query of dimension {query.shape[1]} for a pool of {self.frames.shape[1]}"
            )
        nearest = _Nearest(len(query), topk, self.frames.device)
        for rows in _blocks(len(query)):
            unit = query[rows].float() * scale[rows, None]
            for columns in _blocks(len(self)):
                nearest.add(rows, self._similarity(unit, columns), columns)
        return nearest.similarity, nearest.index

    @torch.no_grad()
    def neighbours_elsewhere(self, lengths: Sequence[int], topk: int = 4) -> tuple[Tensor, Tensor]:
        """The nearest frames of *other* utterances, for each frame of the pool.

        Similarity goes both ways, so each pair of frames is compared once and serves both.

        Args:
            lengths: frames of each utterance that the pool consists of, N in all.
            topk: neighbours.

        Returns:
            Similarities (N, topk) float32 and indices (N, topk), the most similar first.

        Raises:
            MatchError: some utterance's others have fewer than `topk` frames (`can_prematch`).
        """
        if not can_prematch(lengths, topk):
            others = sum(lengths) - max(lengths, default=0)
            raise MatchError(
                f"{topk} neighbours asked of {others} frames: the longest of {len(lengths)} "
                "utterance(s) leaves no more to the others"
            )
        device = self.frames.device
        owner = torch.arange(len(lengths), device=device)
        owner = owner.repeat_interleave(torch.tensor(lengths, device=device))
        nearest = _Nearest(len(self), topk, device)
        for rows in _blocks(len(self)):
            unit = self.frames[rows].float() * self._scale[rows, None]
            for columns in _blocks(len(self), rows.start):
                similarity = self._similarity(unit, columns)
                if owner[columns.start] <= owner[rows.stop - 1]:
                    own = owner[rows, None] == owner[columns]
                    similarity.masked_fill_(own, -torch.inf)
                nearest.add(rows, similarity, columns)
                if columns != rows:
                    nearest.add(columns, similarity.T.contiguous(), rows)
        return nearest.similarity, nearest.index

    @torch.no_grad()
    def match(self, query: Tensor, topk: int = 4, weighting: str = "uniform") -> Tensor:
        """The mean of the nearest frames' values, for each query frame: see `match`."""
        if weighting not in WEIGHTINGS:
            raise MatchError(f"weighting {weighting!r} is none of {', '.join(WEIGHTINGS)}")
        similarity, index = self.neighbours(query, topk)
        weights = torch.full_like(similarity, 1 / topk)
        if weighting == "distance":
            distance = 1 - similarity
            equal = distance <= ROUNDING
            weights = torch.where(equal.any(-1, keepdim=True), equal.float(), 1 / distance)
            weights /= weights.sum(dim=-1, keepdim=True)
        matched = [
            torch.einsum("tk,tke->te", weights[rows], self.values[index[rows]].float())
            for rows in _blocks(len(query))
        ]
        empty = self.values.new_empty(0, self.values.shape[1], dtype=torch.float32)
        return torch.cat([empty, *matched])


def match(
    query: Tensor,
    pool: Tensor,
    values: Tensor | None = None,
    topk: int = 4,
    weighting: str = "uniform",
) -> Tensor:
    """The mean of the `topk` nearest frames of the pool, for each query frame.

    Nearest by cosine similarity, as in section 2.2 of the paper. Keep a `Pool` to match more than
    one query against the same references.

    Args:
        query: (T, D).
        pool: (N, D), float32 or float16, on the query's device.
        values: (N, E) to average instead of the pool's own frames.
        topk: neighbours, 1 to N.
        weighting: `uniform`, as in the paper, or `distance`: weights in proportion to
            1 / (1 - cosine), as scikit-learn's `KNeighborsRegressor(weights="distance")`. Frames
            at distance 0 (up to 1e-6, which is rounding) then share all of the weight.

    Returns:
        (T, D) float32, or (T, E) with `values`.

    Raises:
        MatchError: the pool has fewer than `topk` frames, sizes differ, a frame holds NaN or
            infinity, or another weighting.
    """
    return Pool(pool, values).match(query, topk, weighting)


@torch.no_grad()
def prematch(
    utterances: Sequence[npt.NDArray[np.floating[Any]]],
    topk: int = 4,
    device: str | torch.device = "cpu",
) -> Iterator[npt.NDArray[np.float32]]:
    """Rebuild each utterance of one speaker from that speaker's other utterances.

    Args:
        utterances: the features (T_u, D) of all utterances of a speaker, two or more.
        topk: neighbours a frame.
        device: where to compute.

    Yields:
        As many arrays (T_u, D): the same as `match(utterances[u], all others)` for each u.

    Raises:
        MatchError: some utterance's others have fewer than `topk` frames in all (`can_prematch`),
            or a frame holds NaN or infinity.
    """
    lengths = [len(utterance) for utterance in utterances]
    pool = Pool(torch.from_numpy(np.concatenate(utterances)).float().to(device))
    _, index = pool.neighbours_elsewhere(lengths, topk)
    for own in index.split(lengths):
        parts = [pool.frames[part].mean(dim=1) for part in own.split(BLOCK)]
        yield torch.cat([pool.frames[:0], *parts]).cpu().numpy()

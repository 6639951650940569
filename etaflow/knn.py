"""Matching by nearest neighbours, and prematching.

Baas et al., "Voice conversion with just nearest neighbors", Interspeech 2023 (arXiv 2305.18975).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

QUERY_CHUNK = 2048  # rows of the similarity matrix that are held at a time


class MatchError(ValueError):
    """A pool that cannot answer."""


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def match(query: Tensor, pool: Tensor, values: Tensor | None = None, topk: int = 4) -> Tensor:
    """The mean of the `topk` nearest frames of the pool, for each query frame.

    Nearest by cosine similarity; the mean is uniform (section 2.2 of the paper).

    Args:
        query: (T, D).
        pool: (N, D).
        values: (N, E) to average instead of the pool's own frames.
        topk: neighbours, 1 to N.

    Returns:
        (T, D), or (T, E) with `values`.

    Raises:
        MatchError: the pool has fewer than `topk` frames.
    """
    if not 1 <= topk <= len(pool):
        raise MatchError(f"{topk} neighbours asked of a pool of {len(pool)} frames")
    values = pool if values is None else values
    keys = _unit(pool).T
    matched = [
        values[(_unit(chunk) @ keys).topk(topk, dim=-1).indices].mean(dim=1)
        for chunk in query.split(QUERY_CHUNK)
    ]
    return torch.cat(matched) if matched else query.new_empty(0, values.shape[-1])


def prematch(
    utterances: Sequence[npt.NDArray[np.floating]],
    topk: int = 4,
    device: str | torch.device = "cpu",
) -> list[npt.NDArray[np.float32]]:
    """Rebuild each utterance of one speaker from that speaker's other utterances.

    Args:
        utterances: the features (T_u, D) of all utterances of a speaker, two or more.
        topk: neighbours a frame.
        device: where to compute.

    Returns:
        As many arrays (T_u, D): the same as `match(utterances[u], all others)` for each u.

    Raises:
        MatchError: one utterance only, or the others have fewer than `topk` frames in all.
    """
    if len(utterances) < 2:
        raise MatchError("prematching needs two utterances of a speaker or more")
    stop = np.cumsum([len(utterance) for utterance in utterances])
    pool = torch.from_numpy(np.concatenate(utterances)).float().to(device)
    keys = _unit(pool)
    rebuilt = []
    for end, utterance in zip(stop, utterances, strict=True):
        start = end - len(utterance)
        if len(pool) - len(utterance) < topk:
            raise MatchError(
                f"{topk} neighbours asked of {len(pool) - len(utterance)} frames: the speaker's "
                "other utterances are too short"
            )
        frames = []
        for chunk in keys[start:end].split(QUERY_CHUNK):
            similarity = chunk @ keys.T
            similarity[:, start:end] = -torch.inf
            frames.append(pool[similarity.topk(topk, dim=-1).indices].mean(dim=1))
        rebuilt.append(torch.cat(frames).cpu().numpy())
    return rebuilt

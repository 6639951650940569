"""Intervals by drawing again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]


def bootstrap_intervals(
    statistic: Callable[[Indices], Sequence[float]],
    size: int | Sequence[int],
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Floats:
    """Percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) of K figures.

    Args:
        statistic: takes the indices (N,) of the drawn items and returns the figures (K,) of
            that sample. NaN leaves a sample that has no such figure out.
        size: how many items there are to draw from with replacement. Several sizes: items stand
            group after group, and each group is drawn on its own, keeping its size.
        rounds: number of samples drawn.
        seed: of the random generator; equal seeds give equal draws.
        confidence: share of the samples between the two bounds, 0 to 1.

    Returns:
        (K, 2): lower and upper bounds.

    Raises:
        ValueError: there is nothing to draw from, or no sample has one of the figures.
    """
    sizes = np.atleast_1d(np.asarray(size, np.int64))
    if len(sizes) == 0 or (sizes < 1).any() or rounds < 1:
        raise ValueError(f"nothing to draw: groups of {sizes.tolist()} items, {rounds} rounds")
    lowest = np.repeat(np.cumsum(sizes) - sizes, sizes)
    highest = np.repeat(np.cumsum(sizes), sizes)
    generator = np.random.default_rng(seed)
    figures = np.array([statistic(generator.integers(lowest, highest)) for _ in range(rounds)])
    if np.isnan(figures).all(axis=0).any():
        raise ValueError(f"none of the {rounds} samples has a figure")
    tail = 50 * (1 - confidence)
    return np.asarray(np.nanpercentile(figures, [tail, 100 - tail], axis=0).T)


def bootstrap_interval(
    statistic: Callable[[Indices], float],
    size: int | Sequence[int],
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The interval of one figure; see `bootstrap_intervals`."""
    ((low, high),) = bootstrap_intervals(
        lambda drawn: [statistic(drawn)], size, rounds, seed, confidence
    )
    return float(low), float(high)

"""The order of the data."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Draw = tuple[int, tuple[int, int]]  # item, and the seed of what is random in it


class Batches(Sampler[list[Draw]]):
    """One process's part of batch number i, for i in [start, stop), reshuffled each epoch.

    An epoch that a batch does not divide goes on into the next, so every item is seen equally
    often, and a batch may be larger than the data. Together, the parts of all processes are the
    batch that one process alone would see.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._steps = range(start, stop)
        part = batch_size // processes
        self._part = range(rank * part, (rank + 1) * part)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(self._size)

    def _draw(self, position: int) -> Draw:
        epoch, place = divmod(position, self._size)
        return int(self._order(epoch)[place]), (self._seed, position)

    def _batch(self, step: int) -> list[Draw]:
        first = step * self._batch_size
        return [self._draw(first + place) for place in self._part]

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self._batch, self._steps)

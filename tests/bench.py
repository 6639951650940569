"""What `make bench` prints: our code against a plain version, as ratios within one run.

Times are medians of several turns, the two versions taking turns, so that a machine that slows
down slows both. Memory is the peak of traced allocations (numpy), in a turn of its own.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from etaflow import eta
from etaflow.knn import prematch

TURNS = 5


def median_seconds(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float]:
    """Median time of each, after one warm-up, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        for function, record in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                record.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_megabytes(function: Callable[[], object]) -> float:
    """Peak of the memory that numpy allocates in a call."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def report(name: str, ours: float, plain: float, note: str = "") -> None:
    """One line: both times and their ratio."""
    print(f"{name:<44} {ours:9.3f} s  {plain:9.3f} s  {plain / ours:7.1f} x  {note}")


def bench_eta_fit() -> None:
    """Sums of utterances against the pseudo-inverse over every frame, 150,000 frames."""
    generator = np.random.default_rng(0)
    counts = np.full(500, 300)
    vectors = generator.normal(size=(500, 128))
    frames = generator.normal(size=(counts.sum(), 256)).astype(np.float32)
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(frames, starts, axis=0, dtype=np.float64)

    def plain() -> np.ndarray:
        design = np.column_stack([np.repeat(vectors, counts, axis=0), np.ones(counts.sum())])
        return np.linalg.pinv(design) @ frames

    def ours() -> tuple[np.ndarray, np.ndarray]:
        return eta.fit(sums, counts, vectors)

    memory = f"memory {peak_megabytes(plain) / peak_megabytes(ours):.0f} x less"
    report("Eta fit, 150,000 frames of 256, P = 128", *median_seconds(ours, plain), memory)


def bench_prematch() -> None:
    """One product a speaker against a distance matrix an utterance."""
    generator = np.random.default_rng(0)
    utterances = [generator.normal(size=(200, 256)).astype(np.float32) for _ in range(40)]

    def plain() -> list[torch.Tensor]:
        matched = []
        for index, utterance in enumerate(utterances):
            pool = torch.from_numpy(np.concatenate(utterances[:index] + utterances[index + 1 :]))
            query = torch.from_numpy(utterance)
            unit = torch.nn.functional.normalize
            distances = torch.cdist(unit(query), unit(pool))
            matched.append(pool[distances.topk(4, largest=False).indices].mean(dim=1))
        return matched

    report(
        "prematching, 40 utterances of 200 x 256",
        *median_seconds(lambda: prematch(utterances), plain),
    )


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads; time of ours, of the plain version, plain / ours")
    bench_eta_fit()
    bench_prematch()

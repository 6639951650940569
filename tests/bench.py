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
from etaflow.knn import Pool, prematch

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


def speech_like(size: int, dim: int) -> torch.Tensor:
    """Frames (N, D) with what makes neighbours hard to tell apart in SSL features.

    A large common mean with a few dimensions that stand out (cosines of 0.75 between any two
    frames, 0.94 to the fourth neighbour), a falling spectrum, phones, frames like those before.
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dim + 1) ** -0.5
    mean = torch.randn(dim, generator=generator) * 0.25
    mean[:4] += torch.tensor([6.0, -4.0, 3.0, 2.0])
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    phones = torch.randn(200, dim, generator=generator) * scale
    phone = torch.randint(200, (size // 8 + 1,), generator=generator).repeat_interleave(8)[:size]
    noise = torch.randn(size, dim, generator=generator) * scale
    smooth = sum(noise.roll(shift, 0) for shift in (-1, 0, 1, 2)) / 2
    return 2 * (phones[phone] + 0.7 * smooth) @ basis.T + mean


def plain_distance(query: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """kNN-VC's `fast_cosine_dist`."""
    query_norm, pool_norm = query.norm(dim=-1), pool.norm(dim=-1)
    product = -(torch.cdist(query[None], pool[None], p=2)[0] ** 2)
    product = (product + query_norm[:, None] ** 2 + pool_norm[None] ** 2) / 2
    return 1 - product / (query_norm[:, None] * pool_norm[None])


def bench_prematch() -> None:
    """Each pair of frames compared once against kNN-VC's loop; the neighbours must be the same.

    The loop is timed over every tenth utterance, each of which costs the same, a part in each turn.
    """
    lengths: list[int] = np.random.default_rng(0).integers(150, 251, 200).tolist()
    frames = speech_like(sum(lengths), 1024)
    utterances = list(frames.split(lengths))
    arrays = [utterance.numpy() for utterance in utterances]
    starts = np.cumsum([0, *lengths])

    def plain(number: int) -> torch.Tensor:
        """Indices of the neighbours of one utterance, among all frames."""
        pool = torch.cat(utterances[:number] + utterances[number + 1 :])
        index = plain_distance(utterances[number], pool).topk(4, largest=False).indices
        pool[index].mean(dim=1)
        return index + (index >= starts[number]) * lengths[number]

    plain(0)
    _, found = Pool(frames).neighbours_elsewhere(lengths)
    ours, theirs, different = [], 0.0, 0
    for turn in range(TURNS):
        start = time.perf_counter()
        for _ in prematch(arrays):
            pass
        ours.append(time.perf_counter() - start)
        for number in range(turn * 10, len(lengths), TURNS * 10):
            start = time.perf_counter()
            expected = plain(number)
            theirs += 10 * (time.perf_counter() - start)
            query = utterances[number].double()[:, None]
            pair = [found[starts[number] : starts[number + 1]], expected]
            sets = [index.sort(dim=-1).values for index in pair]
            near, nearest = (
                torch.cosine_similarity(query, frames[index].double(), dim=-1).sum(dim=-1)
                for index in sets
            )
            if not torch.allclose(near, nearest, rtol=0, atol=1e-6):
                raise SystemExit("prematching: other neighbours than those of the plain loop")
            different += int((sets[0] != sets[1]).any(dim=-1).sum())
    name = f"prematching, 200 utterances, {len(frames)} x 1024"
    note = f"{different} neighbour sets differ, by ties"
    report(name, statistics.median(ours), theirs, note)


def bench_match() -> None:
    """Queries against 11 minutes of references, whose norms are taken once."""
    frames = speech_like(35_000, 1024)
    references = Pool(frames[2000:])
    for size in (50, 500, 2000):
        query = frames[:size]

        def plain(query: torch.Tensor = query) -> torch.Tensor:
            distance = plain_distance(query, references.frames)
            return references.frames[distance.topk(4, largest=False).indices].mean(dim=1)

        times = median_seconds(lambda query=query: references.match(query), plain)
        report(f"matching, {size} against 33,000 x 1024", *times)


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads; time of ours, of the plain version, plain / ours")
    bench_eta_fit()
    bench_match()
    bench_prematch()

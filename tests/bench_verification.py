"""What `make bench` prints of speaker verification: ours against plain loops, in one run.

The plain loops embed one utterance at a time, and for each trial both its utterances anew. Their
time is that of a part, of which each item costs the same, extrapolated.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import combinations, cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from resemblyzer import preprocess_wav
from speechbrain.utils.metric_stats import EER

from etaflow.metrics import equal_error_rate
from etaflow.models import ModelInfo
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.resemblyzer import Resemblyzer
from etaflow.store import Embeddings
from etaflow.verification import cosine_scores
from tests.bench import TURNS, median_seconds, report
from tests.unit.test_speaker import tdnn_folder

UTTERANCES, TRIALS, PART = 500, 100_000, 20
Waveforms = list[np.ndarray]


def voices(count: int) -> Waveforms:
    """Harmonics of a moving pitch, in syllables, with noise: 2 to 6 s each."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        times = np.arange(int(random.uniform(2, 6) * 16_000)) / 16_000
        phase = 2 * np.pi * np.cumsum(random.uniform(90, 230) + 20 * np.sin(3 * times)) / 16_000
        tone = sum(np.sin(k * phase) / k for k in range(1, 20))
        loud = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * times)
        noise = random.normal(size=len(times))
        made.append((0.1 * loud * tone + 0.005 * noise).astype(np.float32))
    return made


def measured(
    ours: Callable[[], np.ndarray], plain: Callable[[int], np.ndarray], items: int, part: int
) -> tuple[float, float]:
    """Median seconds of ours for all items, and of the plain loop's parts, extrapolated, in turns.

    `plain` takes the number of an item; what it returns must be ours for that item.
    """
    order: Iterator[int] = cycle(np.random.default_rng(0).permutation(items).tolist())
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        start = time.perf_counter()
        found = ours()
        middle = time.perf_counter()
        chosen = [next(order) for _ in range(part)]
        expected = [plain(item) for item in chosen]
        end = time.perf_counter()
        if not np.allclose(found[chosen], expected, rtol=0, atol=1e-4):
            raise SystemExit("the plain loop gives something else")
        if turn:
            times[0].append(middle - start)
            times[1].append((end - middle) * items / part)
    return statistics.median(times[0]), statistics.median(times[1])


def bench_embedding(name: str, batched: Callable, single: Callable, count: int) -> None:
    """Seconds for 1,000 utterances, all at once against one by one."""
    waveforms = voices(count)
    times = measured(lambda: batched(waveforms), lambda u: single(waveforms[u]), count, PART)
    report(f"1,000 utterances by {name}", *(t * 1000 / count for t in times))


def bench_trials(batched: Callable, single: Callable) -> None:
    """Each utterance embedded once, all trials at once, against pair by pair."""
    waveforms = voices(UTTERANCES)
    names = [f"{index:03d}" for index in range(UTTERANCES)]
    pairs = np.array(list(combinations(range(UTTERANCES), 2)))
    pairs = np.random.default_rng(0).permutation(pairs)[:TRIALS]
    trials = pd.DataFrame({"enrolment": "", "test": "", "target": 0}, index=range(TRIALS))
    trials["enrolment"], trials["test"] = np.array(names)[pairs].T

    def ours() -> np.ndarray:
        stored = Embeddings(names, names, batched(waveforms), "toy", "untrained")
        return cosine_scores(trials, stored)

    def plain(trial: int) -> np.ndarray:
        one, other = (single(waveforms[index]) for index in pairs[trial])
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    report(f"100,000 trials of {UTTERANCES} utterances", *measured(ours, plain, TRIALS, PART))
    vectors = batched(waveforms)
    stored = Embeddings(names, names, vectors, "toy", "untrained")

    def loop() -> list[float]:
        by_name = dict(zip(names, vectors, strict=True))
        return [
            by_name[one]
            @ by_name[two]
            / np.linalg.norm(by_name[one])
            / np.linalg.norm(by_name[two])
            for one, two in zip(trials["enrolment"], trials["test"], strict=True)
        ]

    times = median_seconds(lambda: cosine_scores(trials, stored), loop)
    report("100,000 cosines of embeddings at hand", *times)


def bench_equal_error_rate() -> None:
    """One sort against SpeechBrain's sweep, on 20,000 trials."""
    random = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    scores = random.normal(2.0 * labels).astype(np.float32)
    positive, negative = (torch.from_numpy(scores[labels == k]) for k in (1, 0))
    rate, _ = equal_error_rate(scores, labels)
    other, _ = EER(positive, negative)
    if abs(rate - other) > 1e-3:
        raise SystemExit(f"SpeechBrain's equal error rate is {other}, ours {rate}")
    times = median_seconds(
        lambda: equal_error_rate(scores, labels), lambda: EER(positive, negative)
    )
    report("equal error rate of 20,000 trials", *times, "SpeechBrain")


if __name__ == "__main__":
    print(f"{torch.get_num_threads()} threads; time of ours, of the plain version, plain / ours")
    info = ModelInfo("resemblyzer", "package", "resemblyzer", "", "published", ".")
    ge2e = Resemblyzer(info, torch.device("cpu"))
    bench_embedding(
        "Resemblyzer",
        ge2e.embed,
        lambda waveform: ge2e.encoder.embed_utterance(preprocess_wav(waveform)),
        40,
    )
    with tempfile.TemporaryDirectory() as place:
        ecapa = load_speaker_encoder(tdnn_folder(Path(place) / "ecapa", "ecapa"))
    one_by_one = lambda waveform: ecapa.embed([waveform])[0]  # noqa: E731
    bench_embedding("a small ECAPA-TDNN", ecapa.embed, one_by_one, 200)
    bench_trials(ecapa.embed, one_by_one)
    bench_equal_error_rate()

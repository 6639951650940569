"""What `make bench` prints of separation: ours against plain versions, in one run.

The plain scores take every pair of an estimate and a source by itself, and the permutation of the
best mean, as torchmetrics does. A whole recording is what chunks are compared with; each runs in a
process of its own, for its peak of memory.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_noise_ratio,
    signal_distortion_ratio,
)

from etaflow.metrics import mixture_sdr, mixture_si_snr, pit_si_snr, sdr
from etaflow.separation.networks import create_separator
from etaflow.separation.separate import separate
from tests.bench import median_seconds, report

SECONDS, RATE = 60, 8_000
SEPFORMER = {
    "kind": "sepformer",
    "sample_rate": RATE,
    "speakers": 2,
    "channels": 64,
    "kernel": 16,
    "blocks": 2,
    "layers": 1,
    "chunk": 64,
    "reach": 48,
}


def signals(sources: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Coloured noise as sources (S, T), and estimates of them with some of the others."""
    generator = np.random.default_rng(0)
    white = generator.normal(size=(sources, samples + 50))
    references = np.stack([np.convolve(each, np.hanning(51), "valid") for each in white])
    leaks = 0.2 * generator.normal(size=(sources, sources)) + np.eye(sources)
    return references.astype(np.float32), (leaks @ references)[::-1].astype(np.float32)


def bench_scores(sources: int) -> None:
    """SI-SNR and SDR of a mixture of 7 s, and of its own; one thread."""
    references, estimates = signals(sources, 7 * RATE)
    mixture = references.sum(axis=0)

    def ours() -> np.ndarray:
        mixture_si_snr(mixture, references), mixture_sdr(mixture, references)
        return np.concatenate([pit_si_snr(estimates, references)[0], sdr(estimates, references)[0]])

    def plain() -> np.ndarray:
        target = torch.from_numpy(references.astype(np.float64))
        found, alone = (torch.from_numpy(each.astype(np.float64)) for each in (estimates, mixture))
        values = []
        for metric in (scale_invariant_signal_noise_ratio, signal_distortion_ratio):
            for source in target:
                metric(alone, source)
            _, order = permutation_invariant_training(found[None], target[None], metric)
            values += [metric(found[i], source) for i, source in zip(order[0], target, strict=True)]
        return torch.stack(values).numpy()

    np.testing.assert_allclose(ours(), plain(), atol=1e-3)
    report(f"scores of a mixture of {sources} speakers", *median_seconds(ours, plain))


def recording() -> np.ndarray:
    """Two speakers who pause, of SECONDS."""
    sources, _ = signals(2, SECONDS * RATE)
    times = np.arange(SECONDS * RATE) / RATE
    return ((np.sin(times) > -0.5) * sources[0] + (np.sin(1.3 * times) > -0.5) * sources[1]).astype(
        np.float32
    )


def separated(chunk: float) -> None:
    """Separate the recording in chunks of so many seconds; print seconds and megabytes."""
    torch.manual_seed(0)
    network, mixture = create_separator(SEPFORMER), recording()
    start = time.perf_counter()
    separate(network, mixture, chunk)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"seconds": seconds, "memory": peak}))


def bench_chunks() -> None:
    """A recording in chunks of 20 s, and in one piece, by a small SepFormer."""
    found = []
    for chunk in ("20", "100000"):
        command = [sys.executable, "-m", "tests.bench_separation", chunk]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    chunked, whole = found
    memory = f"memory {chunked['memory']:.0f} of {whole['memory']:.0f} MB"
    report(f"{SECONDS} s in chunks, and whole", chunked["seconds"], whole["seconds"], memory)


if __name__ == "__main__":
    if sys.argv[1:]:
        separated(float(sys.argv[1]))
    else:
        print("separation" + 36 * " " + "etaflow        plain")
        torch.set_num_threads(1)
        bench_scores(2)
        bench_scores(3)
        bench_chunks()

"""The vocoder on the CPU at kNN-VC's size: ours against kNN-VC's generator as it is published.

Weights are random: only the shapes matter here. Real-time factors (processing time by duration) are
medians of turns that the versions take one after another, so that a machine that slows down slows
all; memory is the peak of a process of its own.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from etaflow.vocoder import Generator
from tests.bench_features import peak_megabytes
from tests.upstream_hifigan import make_upstream

TURNS = 5
SECONDS = (1, 10)


def load_both(folder: Path) -> tuple[torch.nn.Module, Generator]:
    """Upstream's generator, and ours with the weights of its checkpoint."""
    upstream = make_upstream()
    torch.save({"generator": upstream.state_dict()}, folder / "g.pt")
    return upstream, Generator.from_pretrained(folder / "g.pt")


@torch.inference_mode()
def bench_speed(folder: Path) -> None:
    """Real-time factors, and the largest difference of the waveforms."""
    upstream, ours = load_both(folder)
    folded = make_upstream().remove_weight_norm()
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "upstream": lambda features: upstream(features[None])[0, 0],
        "upstream, weight norm removed": lambda features: folded(features[None])[0, 0],
        "etaflow": lambda features: ours(features[None])[0, 0],
        "etaflow, in chunks": ours.synthesise,
    }
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print("| kNN-VC's generator, float32 | audio | real-time factor | upstream / this |")
    print("| --- | --- | --- | --- |")
    for seconds in SECONDS:
        features = torch.randn(50 * seconds, 1024)
        times: dict[str, list[float]] = {name: [] for name in ways}
        made = {}
        for turn in range(TURNS + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                made[name] = way(features)
                if turn:
                    times[name].append((time.perf_counter() - start) / seconds)
        for name, taken in times.items():
            ratios = [base / own for base, own in zip(times["upstream"], taken, strict=True)]
            print(
                f"| {name} | {seconds} s | {statistics.median(taken):.3f} | "
                f"{statistics.median(ratios):.2f} |",
                flush=True,
            )
        error = max(float((each - made["upstream"]).abs().max()) for each in made.values())
        print(f"\n{seconds} s: waveforms differ by at most {error:.1e}\n")


def run_long(folder: Path, minutes: int) -> None:
    """Synthesise a long file in this process, and print its peak of memory."""
    generator = Generator.from_pretrained(folder / "g.pt")
    generator.synthesise(torch.randn(3000 * minutes, 1024))
    print(peak_megabytes())


def bench_memory(folder: Path) -> None:
    """Peak of memory for short and long files; the long one's features and waveform are apart."""
    for minutes in (1, 4):
        command = [sys.executable, "-m", "tests.bench_vocoder", str(folder), str(minutes)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = float(answer.stdout.splitlines()[-1])
        # The waveform is there in pieces and whole.
        own = 3000 * minutes * (1024 + 2 * 320) * 4 / 1e6
        print(f"{minutes} min: {peak:.0f} MB at most, features and waveform are {own:.0f} of it")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_long(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as place:
            bench_speed(Path(place))
            bench_memory(Path(place))

"""Dumping features: ours against the loop that is published, at WavLM-Large's true size.

The loop runs one file at a time through all 24 layers and keeps one (kNN-VC's
prematch_dataset.py, s3prl). Weights are random: only the shapes matter here. Each version runs in a
process of its own, for its peak of memory, and they take turns, so that a machine that slows down
slows both.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pandas as pd
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.dataset.sampling import DynamicBucketingSampler
from torch.nn import functional
from transformers import AutoModel

from etaflow.atomic import part_path
from etaflow.audio import check_audio, read_audio, write_audio
from etaflow.batches import similar_lengths
from etaflow.fetching import fetch_model
from etaflow.manifest import COLUMNS, write_manifest
from etaflow.ssl import SSLEncoder
from etaflow.ssl.layers import linear

TURNS = 3
LAYERS = (6, 15)
BATCH_SECONDS = 60


def recordings(seconds: float, longest: float) -> list[np.ndarray]:
    """Noise of up to `longest` seconds a piece, `seconds` in all."""
    generator = np.random.default_rng(0)
    waveforms, total = [], 0.0
    while total < seconds:
        length = generator.uniform(longest / 4, longest)
        waveforms.append(generator.normal(0, 0.1, int(16_000 * length)).astype(np.float32))
        total += length
    return waveforms


def peak_megabytes() -> float:
    """Peak of this process's resident memory; that of getrusage begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_one(who: str, model: Path, layer: int, batch_seconds: float) -> None:
    """One version in this process: what it took, as JSON. `long` is one file of so many minutes."""
    waveforms = recordings(60, 16)
    if who == "long":
        length = int(batch_seconds * 60 * 16_000)
        waveforms = [np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)]
    encode: Callable[[list[np.ndarray]], object]
    if who == "plain":
        plain = AutoModel.from_pretrained(model).eval()

        @torch.inference_mode()
        def encode(waves: list[np.ndarray]) -> object:
            return [
                plain(torch.from_numpy(wave)[None], output_hidden_states=True)
                .hidden_states[layer]
                .clone()
                for wave in waves
            ]

    else:
        encoder = SSLEncoder.from_pretrained(model, layer)

        def encode(waves: list[np.ndarray]) -> object:
            return encoder.encode(waves, max_batch_seconds=batch_seconds)

    encode([waveforms[0][:16_000]])
    loaded = peak_megabytes()
    start = time.perf_counter()
    encode(waveforms)
    seconds = time.perf_counter() - start
    audio = sum(map(len, waveforms)) / 16_000
    print(json.dumps({"rtf": seconds / audio, "memory": peak_megabytes(), "loaded": loaded}))


def ask(*arguments: object) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def bench_speed(model: Path) -> None:
    """Real-time factor (processing time by duration, so lower is faster) and peak of memory."""
    versions = [("plain", 6), *(("ours", layer) for layer in LAYERS)]
    taken: dict[tuple[str, int], list[dict[str, float]]] = {each: [] for each in versions}
    for _ in range(TURNS):
        for who, layer in versions:
            taken[who, layer].append(ask(who, model, layer, BATCH_SECONDS))
    base = statistics.median(run["rtf"] for run in taken["plain", 6])
    print("| WavLM-Large, float32 | real-time factor | plain / ours | peak memory, MB |")
    print("| --- | --- | --- | --- |")
    for who, layer in versions:
        runs = taken[who, layer]
        name = "plain loop, any layer" if who == "plain" else f"etaflow, layer {layer}"
        rtf = statistics.median(run["rtf"] for run in runs)
        memory = max(run["memory"] for run in runs)
        print(f"| {name} | {rtf:.3f} | {base / rtf:.1f} | {memory:.0f} |", flush=True)


def bench_exactness(model: Path) -> None:
    """The largest difference to the plain loop, relative to the largest value."""
    waveforms = spoken(30)[:3]
    plain = AutoModel.from_pretrained(model).eval()
    with torch.inference_mode():
        expected = [
            plain(torch.from_numpy(wave)[None], output_hidden_states=True).hidden_states
            for wave in waveforms
        ]
    encoder = SSLEncoder.from_pretrained(model, (1, *LAYERS))
    found = encoder.encode_layers(waveforms)
    for layer in encoder.layers:
        error = max(
            float((one[layer] - other[layer][0]).abs().max() / other[layer].abs().max())
            for one, other in zip(found, expected, strict=True)
        )
        print(f"Layer {layer}: off by at most {error:.1e} of the largest value", flush=True)


def best_seconds(work: Callable[[], object]) -> float:
    """The shortest of five turns, after one to warm up."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@torch.inference_mode()
def bench_parts(model: Path) -> None:
    """Where the time is saved: a product of a transformer block, and the front-end."""
    hidden, weight = torch.randn(1, 500, 1024), torch.randn(4096, 1024)
    operations = 2 * 500 * 1024 * 4096 / 1e9
    ways = {
        "matrix product": best_seconds(lambda: functional.linear(hidden, weight)),
        "1 x 1 convolution": best_seconds(lambda: linear(hidden, weight, None)),
    }
    for name, seconds in ways.items():
        print(f"500 x 1024 by 1024 x 4096 as a {name}: {operations / seconds:.0f} GFLOP/s")
    waveform = torch.from_numpy(recordings(1, 10)[0])
    plain = AutoModel.from_pretrained(model).eval().feature_extractor
    ours = SSLEncoder.from_pretrained(model, 1).front_end
    theirs = best_seconds(lambda: plain(waveform[None]))
    print(f"front-end: {theirs / best_seconds(lambda: ours(waveform)):.1f} times faster")


def bench_padding() -> None:
    """Sorted batches against lhotse's buckets, on durations spread like LibriSpeech's."""
    generator = np.random.default_rng(0)
    full, short = generator.normal(14.5, 1.3, 3000), generator.uniform(1.5, 13, 1400)
    lengths = (np.concatenate([full.clip(1, 17), short]) * 16_000).astype(int).tolist()
    cuts = []
    for index, samples in enumerate(lengths):
        seconds = samples / 16_000
        recording = Recording(str(index), [], 16_000, samples, seconds)
        cuts.append(MonoCut(str(index), 0, seconds, 0, recording=recording))
    sampler = DynamicBucketingSampler(CutSet.from_cuts(cuts), max_duration=240, num_buckets=30)
    buckets = [[int(cut.duration * 16_000) for cut in batch] for batch in sampler]
    ours = [[lengths[i] for i in batch] for batch in similar_lengths(lengths, 240 * 16_000)]
    print("\nPadding of a shard of 4,400 utterances in batches of 240 s:")
    for name, batches in (("sorted", ours), ("lhotse, 30 buckets", buckets)):
        padded = sum(max(batch) * len(batch) for batch in batches)
        share = padded / sum(map(sum, batches)) - 1
        print(f"  {name}: {100 * share:.1f} % of the audio, {len(batches)} batches")


def anonymous_megabytes(pid: int) -> float:
    """Memory that is the process's own; the pages of the file it writes are the system's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def bench_flat_memory(model: Path, folder: Path) -> None:
    """Memory of `dump_features` while it works through 1,000 utterances of one length range."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(1000):
        path = folder / f"{index:04d}.wav"
        length = int(generator.uniform(16_000, 48_000))
        write_audio(path, generator.normal(0, 0.1, length).astype(np.float32))
        row = [f"u{index:04d}", "s", "0", "train", str(path), length, 16_000, "", "0000"]
        rows.append([*row, check_audio(path).checksum])
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "0000.tsv")
    config = {"normalize": False, "dtype": "float16", "batch_seconds": 60, "precision": "float32"}
    output = folder / "0000.h5"
    script = Path(__file__).parents[1] / "scripts/dump_features.py"
    command = [sys.executable, script, "--config", json.dumps(config), "--layer", "6"]
    command += ["--manifest", folder / "0000.tsv", "--model", model / "model.json"]
    process = subprocess.Popen(
        [*map(str, command), "--output", str(output)], stderr=subprocess.DEVNULL
    )
    seen: list[tuple[int, float]] = []
    while process.poll() is None:
        time.sleep(0.2)
        try:
            with h5py.File(part_path(output), locking=False) as file:
                written = int(file["written"][()].sum())
            seen.append((written, anonymous_megabytes(process.pid)))
        except (OSError, KeyError, IndexError):
            continue  # not begun, or just ended
    if process.returncode:
        raise SystemExit(f"dump_features failed with {process.returncode}")
    print("\nOwn memory of dump_features, layer 6, batches of 60 s, 1,000 utterances of 1 to 3 s:")
    for first, last in ((1, 250), (250, 500), (500, 750), (750, 1000)):
        peak = max(memory for count, memory in seen if first <= count < last)
        print(f"  utterances {first:4d} to {last:4d}: at most {peak:5.0f} MB")


def spoken(seconds: float) -> list[np.ndarray]:
    """Recordings of ETAFLOW_SPEECH_DIR, a speaker after another; noise where there is none."""
    folder = os.environ.get("ETAFLOW_SPEECH_DIR")
    if not folder:
        return recordings(seconds, 10)
    waveforms: list[np.ndarray] = []
    for path in sorted(Path(folder).glob("LibriSpeech/**/*.flac")):
        waveforms.append(read_audio(path))
        if sum(map(len, waveforms)) > seconds * 16_000:
            break
    return waveforms


def bench_long_files(model: Path) -> None:
    """Chunks against the whole file where that is possible, and memory for an hour."""
    waveform = np.concatenate(spoken(120))[: 120 * 16_000]
    print("\nA file of 120 s in chunks of 60 s with 4 s of context, against the whole file:")
    for layer in LAYERS:
        encoder = SSLEncoder.from_pretrained(model, layer)
        (chunked,) = encoder.encode([waveform])
        with mock.patch("etaflow.ssl.frames.CHUNK_FRAMES", 10**6):
            (whole,) = encoder.encode([waveform])
        error = (chunked - whole).norm(dim=1) / whole.norm(dim=1)
        cosine = functional.cosine_similarity(chunked, whole)
        print(
            f"  layer {layer:2d}: relative error {error.median():.1e} median, {error.max():.1e} at "
            f"most; cosine at least {cosine.min():.6f}"
        )
    short, hour = (ask("long", model, 6, minutes) for minutes in (1, 60))
    alone = 3600 * (16_000 + 50 * 1024) * 4 / 1e6
    print(
        f"  an hour, layer 6: {hour['memory']:.0f} MB at most, {short['memory']:.0f} MB for a "
        f"minute; the hour's waveform and features alone are {alone:.0f} MB"
    )


def bench_half_precision(model: Path) -> None:
    """How many of the 4 nearest neighbours stay the same."""
    waveforms = spoken(60)
    found = {}
    for precision in ("float32", "float16"):
        encoder = SSLEncoder.from_pretrained(model, 6, precision=precision)
        unit = [functional.normalize(each, dim=1) for each in encoder.encode(waveforms)]
        pool = torch.cat(unit[1:])
        found[precision] = (unit[0] @ pool.t()).topk(4, dim=1).indices
    both = (found["float32"][:, :, None] == found["float16"][:, None, :]).any(dim=2)
    print(
        f"\nfloat16 against float32, layer 6: {100 * both.float().mean():.1f} % of the 4 nearest "
        f"neighbours of {len(both)} frames are the same"
    )


def main() -> None:
    """All of it, with WavLM-Large's shape in a temporary folder."""
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "wavlm-large"
        entry = {"source": "random", "architecture": "wavlm-large", "seed": 0}
        fetch_model("wavlm-large", entry, model)
        bench_exactness(model)
        bench_parts(model)
        bench_padding()
        bench_speed(model)
        bench_flat_memory(model, Path(place))
        bench_long_files(model)
        bench_half_precision(model)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        version, folder, layer, batch = sys.argv[1:]
        run_one(version, Path(folder), int(layer), float(batch))

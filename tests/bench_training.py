"""What `make bench` prints: steps of our vocoder training against the published loop, in one run.

The plain loop is HiFi-GAN's and kNN-VC's `train.py` in float32: every item reads its whole file and
its whole features, the discriminators judge recordings and syntheses in calls of their own, and the
generator's backward pass makes gradients of the discriminators, too, which nothing uses. Both take
the same networks, batches of the same size and the same losses, and turns.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
import yaml
from torch.utils.data import DataLoader

from etaflow.audio import file_checksum
from etaflow.store import FeatureMeta, FeatureStore, FeatureWriter
from etaflow.training.batches import Batches
from etaflow.training.trainer import Settings, Trainer, make_accelerator
from etaflow.vocoder import Generator, log_mel, read_config
from etaflow.vocoder.discriminator import Discriminator, DiscriminatorConfig
from etaflow.vocoder.task import (
    MATCHING_WEIGHT,
    MEL_WEIGHT,
    VocoderTask,
    adversarial_loss,
    discriminator_loss,
    matching_loss,
)
from etaflow.waveforms import Waveforms

UTTERANCES, FRAMES = 40, 600  # of 12 s, LibriSpeech's mean
ROOT = Path(__file__).parents[1]


def make_corpus(folder: Path, dim: int) -> tuple[FeatureStore, dict[str, Path]]:
    """Noise: FLAC, a shard of float16 features, and the same in a file an utterance."""
    random = np.random.default_rng(0)
    paths = {f"u{index}": folder / f"{index}.flac" for index in range(UTTERANCES)}
    size, names = 320 * FRAMES, list(paths)
    meta = FeatureMeta("noise", "0", 6, False, 16_000, 320)
    with FeatureWriter(
        folder / "0.h5",
        meta,
        names,
        ["s"] * UTTERANCES,
        [size] * UTTERANCES,
        [FRAMES] * UTTERANCES,
        dim,
    ) as writer:
        for name, path in paths.items():
            soundfile.write(path, random.normal(0, 0.1, size), 16_000)
            frames = random.standard_normal((FRAMES, dim), np.float32)
            torch.save(torch.from_numpy(frames).half(), path.with_suffix(".pt"))
            writer.write(name, frames)
    return FeatureStore([folder / "0.h5"]), paths


def plain_batches(paths: dict[str, Path], frames: int, size: int) -> Iterator[dict[str, Any]]:
    """Batches read anew from the files."""
    random, names = np.random.default_rng(0), list(paths)
    while True:
        features, waveforms = [], []
        for name in random.choice(names, size):
            audio, _ = soundfile.read(paths[name], dtype="float32")
            whole = torch.load(paths[name].with_suffix(".pt"), weights_only=True).float()
            start = int(random.integers(len(whole) - frames + 1))
            features.append(whole[start : start + frames])
            waveforms.append(torch.from_numpy(audio[320 * start : 320 * (start + frames)]))
        yield {"features": torch.stack(features), "waveform": torch.stack(waveforms)}


def plain_stepper(
    generator: Generator, discriminator: Discriminator, batches: Iterator[dict[str, Any]]
) -> Callable[[], None]:
    """The published training step."""
    optimizers = [
        torch.optim.AdamW(module.parameters(), lr=2e-4, betas=(0.8, 0.99))
        for module in (discriminator, generator)
    ]

    def step() -> None:
        batch = next(batches)
        real = batch["waveform"].unsqueeze(1)
        fake = generator(batch["features"])
        optimizers[0].zero_grad()
        discriminator_loss(discriminator(real), discriminator(fake.detach())).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        mel = F.l1_loss(log_mel(fake.squeeze(1)), log_mel(batch["waveform"]))
        judged_real, judged_fake = discriminator(real), discriminator(fake)
        total = MEL_WEIGHT * mel + MATCHING_WEIGHT * matching_loss(judged_real, judged_fake)
        (total + adversarial_loss(judged_fake)).backward()
        optimizers[1].step()
        mel.item()

    return step


def our_stepper(task: VocoderTask, precision: str) -> Callable[[], None]:
    """A step of `etaflow.training`, its reading included."""
    trainer = Trainer(
        task,
        Settings(10**6, 0, 10**6, "mel_distance", 10**6, precision=precision, ema=0.999),
        make_accelerator(precision),
    )
    sampler = Batches(len(task.dataset), task.batch_size, 0, 0, 10**6)
    batches = enumerate(DataLoader(task.dataset, batch_sampler=sampler))

    def step() -> None:
        number, batch = next(batches)
        trainer.step(batch, number)

    return step


def bench(name: str, vocoder: dict[str, Any], dim: int, turns: int, precision: str) -> None:
    """Print the median seconds of a step of each and their ratio."""
    sizes = {"feature_dim": dim, **vocoder["generator"]}
    config = read_config(json.loads(json.dumps(sizes)))
    judges = DiscriminatorConfig(**vocoder["discriminator"])
    with tempfile.TemporaryDirectory() as place:
        store, paths = make_corpus(Path(place), dim)
        names = list(paths)
        task = VocoderTask(
            Generator(config),
            judges,
            store,
            Waveforms({name: (path, file_checksum(path)) for name, path in paths.items()}),
            names[1:],
            names[:1],
            vocoder["segment_frames"],
            vocoder["batch_size"],
        )
        batches = plain_batches(paths, vocoder["segment_frames"], vocoder["batch_size"])
        steppers = (
            our_stepper(task, precision),
            plain_stepper(Generator(config), Discriminator(judges), batches),
        )
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(turns + 1):
            for step, record in zip(steppers, times, strict=True):
                start = time.perf_counter()
                step()
                if turn:
                    record.append(time.perf_counter() - start)
    ours, plain = (statistics.median(each) for each in times)
    print(f"{name:<44} {ours:9.3f} s  {plain:9.3f} s  {plain / ours:7.2f} x", flush=True)


if __name__ == "__main__":
    precision = sys.argv[1] if len(sys.argv) > 1 else "float32"
    print(f"{torch.get_num_threads()} threads, {precision}; a step of ours, of the plain loop")
    for name, preset, dim, batch_size, turns in (
        ("small HiFi-GAN (tests/untrained.yaml), batch 8", "tests/untrained", 128, 8, 30),
        # A quarter of its batch: 16 take a CPU minutes.
        ("kNN-VC's HiFi-GAN (librispeech.yaml), batch 4", "config/librispeech", 1024, 4, 2),
    ):
        presets = yaml.safe_load((ROOT / f"{preset}.yaml").read_text(encoding="utf-8"))
        vocoder = next(iter(presets["vocoder"].values())) | {"batch_size": batch_size}
        bench(name, vocoder, dim, turns, precision)

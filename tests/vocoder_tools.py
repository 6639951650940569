"""A small vocoder training by the script, for tests."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from etaflow.audio import file_checksum, write_audio
from etaflow.fetching import fetch_model
from etaflow.manifest import COLUMNS, write_manifest
from etaflow.store import Embeddings, FeatureMeta, FeatureWriter
from tests.conftest import ROOT

CONFIG: dict[str, Any] = {
    "features": "raw",
    "generator": {
        "hidden_dim": 4,
        "upsample_channels": 16,
        "resblock_kernels": [3],
        "resblock_dilations": [[1, 3]],
    },
    "discriminator": {"width": 0.0625, "periods": [2], "scales": 0},
    "segment_frames": 6,
    "batch_size": 2,
    "steps": 3,
    "learning_rate": 1e-3,
    "lr_decay": 0.999,
    "adversarial_from": 1,
    "precision": "float32",
    "ema": 0.9,
    "clip_norm": 10.0,
    "validate_every": 2,
    "validation_utterances": 1,
    "seed": 0,
}
NAMES = ["a", "b", "c", "short", "test"]


def with_checksums(paths: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """What `Waveforms` reads."""
    return {name: (path, file_checksum(path)) for name, path in paths.items()}


def make_data(folder: Path) -> None:
    """Noise: a manifest, a shard, embeddings and an SSL model's `model.json`."""
    random = np.random.default_rng(0)
    frames = [4 if name == "short" else 10 for name in NAMES]
    samples = [320 * count + 80 for count in frames]
    rows = []
    for name, size in zip(NAMES, samples, strict=True):
        path = folder / f"{name}.wav"
        write_audio(path, random.uniform(-0.3, 0.3, size).astype(np.float32))
        split = "test" if name == "test" else "train"
        rows.append(
            [name, "s", "1", split, str(path), size, 16_000, "", "0000", file_checksum(path)]
        )
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "manifest.tsv")
    meta = FeatureMeta("tiny", "rev", 2, True, 16_000, 320)
    speakers = ["s"] * len(NAMES)
    with FeatureWriter(folder / "0000.h5", meta, NAMES, speakers, samples, frames, 5) as writer:
        for name, count in zip(NAMES, frames, strict=True):
            writer.write(name, random.standard_normal((count, 5)).astype(np.float32))
    vectors = random.standard_normal((len(NAMES), 3)).astype(np.float32)
    Embeddings(NAMES, speakers, vectors, "encoder", "trained").write(folder / "embeddings.h5")
    entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    fetch_model("tiny", entry, folder / "model")


def training(folder: Path, output: Path, config: dict[str, Any], *arguments: str | Path) -> list:
    """The script and its arguments, on the data in `folder`; what it writes goes to `output`."""
    return [
        *(ROOT / "scripts" / "train_vocoder.py", folder / "0000.h5"),
        *("--config", json.dumps(config, sort_keys=True)),
        *("--model", folder / "model" / "model.json", "--manifest", folder / "manifest.tsv"),
        *("--output-dir", output / "vocoder", "--working-dir", output / "work"),
        *("--checkpoint-every", 2, "--checkpoints-kept", 1),
        *arguments,
    ]


def python(*arguments: Any) -> list[str]:
    """The command that runs a script in this Python."""
    return [sys.executable, *map(str, arguments)]

"""Mixtures of synthetic speakers, and small separators to train on them."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from etaflow.audio import file_checksum, write_lossless
from etaflow.manifest import write_table
from etaflow.schedule import rate
from etaflow.separation.crops import MixtureCrops, MixtureFiles
from etaflow.separation.network import Separator
from etaflow.separation.networks import create_separator
from etaflow.separation.task import SeparationTask, Validation
from etaflow.training import Settings, train
from tests.conftest import ROOT
from tests.training_tools import Killable

RATE = 8_000
SAMPLES = 3_200
NETWORK: dict[str, Any] = {
    "kind": "conv-tasnet",
    "sample_rate": RATE,
    "speakers": 2,
    "channels": 16,
    "kernel": 16,
    "blocks": 2,
    "layers": 2,
}
CONFIG: dict[str, Any] = {
    "mixtures": "mini",
    "network": NETWORK,
    "dynamic_mixing": True,
    "crop_seconds": 0.25,
    "batch_size": 2,
    "steps": 4,
    "trained": "all",
    "learning_rate": {"pretrained": 1e-3, "new": 5e-3},
    "weight_decay": 1e-4,
    "schedule": {"kind": "cosine", "warmup_steps": 2},
    "precision": "float32",
    "ema": None,
    "clip_norm": 5.0,
    "validate_every": 2,
    "validation_mixtures": None,
    "patience": None,
    "keep": "last",
    "seed": 1,
}


def source(speaker: int, number: int, size: int = SAMPLES) -> np.ndarray:
    """Noise of a level of its own: of even speakers without high, of odd ones without low tones."""
    generator = np.random.default_rng((speaker, number))
    noise = generator.normal(0, generator.uniform(0.02, 0.1), size + 7)
    taps = np.ones(8) * (-1.0 if speaker % 2 else 1.0) ** np.arange(8)
    return np.convolve(noise, taps / 3, "valid").astype(np.float32)


def make_mixtures(
    folder: Path,
    pairs: Sequence[Sequence[int]],
    noise: bool = False,
    sizes: Sequence[int] = (SAMPLES,),
    sample_rate: int = RATE,
) -> Path:
    """Mixtures of these speakers, as `scripts/mix_speakers.py` writes them, and their table."""
    rows = []
    for index, pair in enumerate(pairs):
        size = sizes[index % len(sizes)]
        parts = {f"source_{n}": source(who, index, size) for n, who in enumerate(pair, 1)}
        if noise:
            generator = np.random.default_rng(1_000 + index)
            parts["noise"] = generator.normal(0, 0.01, size).astype(np.float32)
        parts = {"mixture": np.sum(list(parts.values()), axis=0, dtype=np.float32), **parts}
        name = f"m{index:02d}"
        row: dict[str, Any] = {"mixture_ID": name}
        for part, samples in parts.items():
            row[f"{part}_path"] = str(folder / part / f"{name}.wav")
            write_lossless(row[f"{part}_path"], samples, sample_rate)
        row |= {f"speaker_{n}": f"s{who}" for n, who in enumerate(pair, 1)}
        row |= {"length": size, "sample_rate": sample_rate}
        row |= {f"{part}_checksum": file_checksum(row[f"{part}_path"]) for part in parts}
        rows.append(row)
    write_table(pd.DataFrame(rows), folder / "mixtures.tsv")
    return folder / "mixtures.tsv"


class Killed(Killable, SeparationTask):
    pass


def make_task(
    table: pd.DataFrame,
    held_out: pd.DataFrame,
    steps: int = 60,
    network: Separator | None = None,
    dynamic: bool = False,
    num_samples: int = 1_600,
    **changes: Any,
) -> Killed:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "batch_size": 4,
        "rates": (1e-3, 1e-2),
        "schedule": partial(rate, steps=steps, warmup=5, kind="cosine"),
    }
    return Killed(
        network or create_separator(NETWORK),
        MixtureCrops(MixtureFiles(table), num_samples, dynamic),
        Validation(MixtureFiles(held_out)),
        **{**options, **changes},
    )


def run_task(task: SeparationTask, folder: Path, steps: int = 60, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "steps": steps,
        "seed": 3,
        "validate_every": 20,
        "select": "loss",
        "checkpoint_every": 4,
        "clip_norm": 5.0,
    }
    return train(task, Settings(**{**options, **changes}), working_dir=folder, fingerprint="f")


def training(folder: Path, output: Path, config: dict[str, Any], *arguments: Any) -> list[str]:
    """The command that trains on the mixtures in `folder`."""
    options = [
        *("--config", json.dumps(config, sort_keys=True)),
        *("--mixtures", folder / "train" / "mixtures.tsv"),
        *("--validation", folder / "validation" / "mixtures.tsv"),
        *("--output-dir", output / "separator", "--working-dir", output / "work"),
        *("--checkpoint-every", 1, "--checkpoints-kept", 2),
        *arguments,
    ]
    return [sys.executable, str(ROOT / "scripts" / "train_separator.py"), *map(str, options)]

"""Synthetic speakers and a small network; as a program, its training in several processes."""

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from etaflow.audio import file_checksum, write_audio
from etaflow.manifest import COLUMNS, read_manifest, write_manifest
from etaflow.schedule import rate
from etaflow.speaker.losses import make_criterion
from etaflow.speaker.network import SpeakerNetwork
from etaflow.speaker.task import SpeakerTask, Validation
from etaflow.speaker.utterances import SpeakerUtterances
from etaflow.training import Settings, train
from etaflow.trials import generate_trials
from etaflow.waveforms import Waveforms
from tests.conftest import ROOT
from tests.training_tools import Killable

SPEAKERS, UTTERANCES = 8, 5
HELD_OUT = ("s1", "s2", "s3", "s4")  # of `make_task`


class TwoLayers(SpeakerNetwork):
    """Log spectra of 256 samples through two linear layers, their mean over time in between."""

    def __init__(self, dim: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.shortest = dim, 256
        self.layers = [nn.Linear(129, 16), nn.Linear(16, dim)]
        self.net = nn.ModuleList([*self.layers, nn.Dropout(dropout)])

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self._embed(waveform) for waveform in waveforms])

    def _embed(self, waveform: torch.Tensor) -> torch.Tensor:
        spectra = torch.fft.rfft(waveform.unfold(0, 256, 256)).abs().add(1e-3).log()
        hidden = self.net[0](spectra).relu().mean(dim=0, keepdim=True)
        return self.net[1](self.net[2](hidden))

    def sizes(self) -> dict[str, Any]:
        return {"kind": "two", "dim": self.dim}


def utterance(speaker: int, number: int, size: int = 4_800) -> np.ndarray:
    """Noise through a filter of the speaker's own, and through one that is each time another."""
    generator = np.random.default_rng((speaker, number))
    taps = np.random.default_rng(speaker).normal(0, 1, 12)
    taps = np.convolve(taps, [1, generator.uniform(-1, 1)])
    sound = np.convolve(generator.normal(0, 1, size + 12), taps, "valid")
    return (generator.uniform(0.02, 0.1) * sound / np.abs(taps).sum()).astype(np.float32)


def make_corpus(folder: Path, speakers: int = SPEAKERS, utterances: int = UTTERANCES) -> Path:
    """Recordings of synthetic speakers, and their manifest; the first is in the test split."""
    rows = []
    for speaker in range(speakers):
        for number in range(utterances):
            name = f"s{speaker}-{number}"
            path = folder / f"{name}.wav"
            write_audio(path, utterance(speaker, number))
            split = "test" if speaker == 0 else "train"
            row = [name, f"s{speaker}", "1", split, str(path), 4_800, 16_000, "", "0000"]
            rows.append([*row, file_checksum(path)])
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "manifest.tsv")
    return folder / "manifest.tsv"


def waveforms_of(table: pd.DataFrame) -> Waveforms:
    files = zip(table["path"], table["checksum"], strict=True)
    return Waveforms(dict(zip(table["utterance_id"], files, strict=True)))


def trials_of(table: pd.DataFrame) -> pd.DataFrame:
    return generate_trials(table[table["speaker_id"].isin(HELD_OUT)], None, 50, 0, False)


class Killed(Killable, SpeakerTask):
    pass


def make_task(
    table: pd.DataFrame,
    kind: str = "am_softmax",
    steps: int = 60,
    network: TwoLayers | None = None,
    **changes: Any,
) -> Killed:
    torch.manual_seed(0)
    network = network or TwoLayers(dropout=0.1)
    own = table[~table["speaker_id"].isin(HELD_OUT)]
    utterances = {name: list(rows["utterance_id"]) for name, rows in own.groupby("speaker_id")}
    waveforms = waveforms_of(table)
    options: dict[str, Any] = {
        "batch_size": 6,
        "rates": (1e-3, 1e-2),
        "schedule": partial(rate, steps=steps, warmup=5, kind="cosine"),
        "weight_decay": 1e-3,
    }
    return Killed(
        network,
        make_criterion({"kind": kind}, network.dim, len(utterances)),
        SpeakerUtterances(utterances, waveforms, 3, 3_200),
        Validation(trials_of(table), waveforms),
        **{**options, **changes},
    )


def run_task(task: SpeakerTask, folder: Path, steps: int = 60, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "steps": steps,
        "seed": 3,
        "validate_every": 20,
        "select": "eer",
        "checkpoint_every": 4,
        "clip_norm": 3.0,
    }
    return train(task, Settings(**{**options, **changes}), working_dir=folder, fingerprint="f")


CONFIG: dict[str, Any] = {
    "network": {"kind": "ecapa", "channels": 8, "dim": 6},
    "loss": {"kind": "am_softmax", "margin": 0.1},
    "speakers": 4,
    "utterances": 2,
    "crop_seconds": 0.25,
    "augmentation": None,
    "steps": 4,
    "trained_layers": None,
    "learning_rate": {"pretrained": 1e-3, "new": 5e-3},
    "weight_decay": 1e-4,
    "schedule": {"kind": "cosine", "warmup_steps": 2},
    "precision": "float32",
    "ema": None,
    "clip_norm": 3.0,
    "validate_every": 2,
    "patience": None,
    "keep": "last",
    "validation": {"speakers": 3, "nontargets": 20, "max_seconds": None},
    "seed": 1,
}


def training(folder: Path, output: Path, config: dict[str, Any], *arguments: str | Path) -> list:
    """The script and its arguments, on the corpus in `folder`."""
    return [
        ROOT / "scripts" / "train_speaker_encoder.py",
        *("--config", json.dumps(config, sort_keys=True), "--manifest", folder / "manifest.tsv"),
        *("--output-dir", output / "encoder", "--working-dir", output / "work"),
        *("--checkpoint-every", 2, "--checkpoints-kept", 1),
        *arguments,
    ]


def python(*arguments: Any) -> list[str]:
    """The command that runs a script in this Python."""
    return [sys.executable, *map(str, arguments)]


if __name__ == "__main__":
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Dropout differs by process.
    task = make_task(read_manifest(corpus), steps=8, network=TwoLayers())
    history = run_task(task, folder, 8, validate_every=2, patience=2, keep="last")
    rank = os.environ.get("RANK", "0")
    (folder / f"{rank}.json").write_text(json.dumps(history), encoding="utf-8")

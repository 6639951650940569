"""Clusters and pretraining by their scripts, on noises of different colours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from etaflow.audio import file_checksum, write_audio
from etaflow.manifest import COLUMNS, read_table, write_manifest
from etaflow.models import read_model_info
from etaflow.ssl import SSLEncoder
from etaflow.ssl.pretraining.codes import Codes
from etaflow.ssl.pretraining.network import pretrained_wavlm
from tests.conftest import ROOT
from tests.unit.test_pretraining import SIZES

pytestmark = pytest.mark.slow
CONFIG: dict[str, Any] = {
    "network": SIZES,
    "crop_seconds": 0.5,
    "masked": 0.65,
    "seen_weight": 0.5,
    "pitch_weight": 0.5,
    "spectrum_weight": 0.5,
    "overlaid": {"speech": 0.2, "noise": 0.2},
    "batch_size": 4,
    "steps": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "schedule": {"kind": "cosine", "warmup_steps": 1},
    "precision": "float32",
    "ema": None,
    "clip_norm": 5.0,
    "validate_every": 2,
    "validation": {"speakers": 2, "utterances": 2},
    "seed": 0,
}
MFCC = {"kind": "mfcc", "clusters": 5, "utterances": 8, "seed": 0}


def make_corpus(path: Path, speakers: int = 5) -> Path:
    """A manifest beside its files: 3 utterances a speaker, of 0.4 to 0.8 s, the last in `test`."""
    rows = []
    for speaker in range(speakers):
        for number in range(3):
            random = np.random.default_rng((speaker, number))
            size = 6400 + 3200 * number
            wave = np.cumsum(random.standard_normal(size)) if speaker % 2 else random.random(size)
            name = f"{speaker}-{number}"
            file = path.with_name(f"{path.name.split('.')[0]}-{name}.wav")
            write_audio(file, (wave / np.abs(wave).max() / 2).astype(np.float32))
            split = "test" if speaker == speakers - 1 else "train"
            rows.append([name, str(speaker), "0", split, str(file), size, 16_000, "", "0000"])
            rows[-1].append(file_checksum(file))
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), path)
    return path


def script(name: str, config: dict[str, Any], *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", "--config", json.dumps(config)]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )


def pretrain(folder: Path, config: dict[str, Any], *arguments: Any) -> Any:
    return script(
        "pretrain_ssl",
        config,
        *("--output-dir", folder, "--working-dir", folder.with_name(f"{folder.name}-work")),
        *("--checkpoint-every", 2, "--checkpoints-kept", 1, "--tracker", "none"),
        *arguments,
    )


def test_two_iterations(tmp_path: Path) -> None:
    manifests = [make_corpus(tmp_path / "one.tsv"), make_corpus(tmp_path / "two.tsv")]
    given = [word for path in manifests for word in ("--manifest", path)]
    codes = tmp_path / "codes.safetensors"
    done = script("cluster_frames", {"targets": MFCC}, *given, "--output", codes)
    assert done.returncode == 0, done.stderr
    read = Codes.read(codes)
    assert read.clusters == 5
    found = {name: len(each) for name, each in read.items()}
    frames = {0: 19, 1: 29, 2: 39}
    names = [f"{c}/{s}-{n}" for c in ("one", "two") for s in range(4) for n in range(3)]
    assert found == {name: frames[int(name[-1])] for name in names}
    assert set(read.codes.tolist()) == set(range(5))

    first = tmp_path / "first"
    done = pretrain(first, CONFIG, *given, "--codes", codes)
    assert done.returncode == 0, done.stderr
    assert "of 6 speakers to train on, 4 utterances of 2 others" in done.stderr
    table = read_table(first / "metrics.tsv", numbers=("step", "value"))
    assert table.loc[table["metric"] == "valid/loss", "step"].tolist() == [0, 2, 4]
    assert set(table["metric"]) == {
        *("train/loss", "train/accuracy", "train/seen_loss", "train/seen_accuracy"),
        "train/network_gradient_norm",
        "train/pitch_loss",
        "train/spectrum_loss",
        *("valid/loss", "valid/accuracy", "valid/pitch_error", "valid/spectrum_error"),
    }
    assert not (tmp_path / "first-work").exists()
    info, _ = read_model_info(first)
    assert (info.name, info.architecture, info.weights) == ("first", "wavlm", "trained")
    encoder = SSLEncoder.from_pretrained(first, layer=2, normalize=True)
    assert encoder.encode([np.zeros(1040, np.float32)])[0].shape == (3, 16)

    targets = {"kind": "layer", "layer": 1, "clusters": 7, "utterances": 24, "seed": 0}
    model = ["--model", first / "model.json"]
    done = script("cluster_frames", {"targets": targets}, *given, "--output", codes, *model)
    assert done.returncode == 0, done.stderr
    assert Codes.read(codes).clusters == 7
    again = CONFIG | {"network": {"pretrained": "first"}, "steps": 1, "learning_rate": 1e-9}
    done = pretrain(tmp_path / "second", again, *given, "--codes", codes, *model)
    assert done.returncode == 0, done.stderr
    # A step that is next to nothing leaves what it started from.
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("first", "second")]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert pretrained_wavlm(tmp_path / "second").config.num_hidden_layers == 2


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "one.tsv")
    Codes.of(2, [("0-0", np.zeros(3, np.int16))], {}).write(tmp_path / "codes.safetensors")
    given = ["--manifest", manifest, "--codes", tmp_path / "codes.safetensors"]
    done = pretrain(tmp_path / "first", CONFIG, *given)
    assert done.returncode == 2
    assert "of another corpus, 0-1 is not in" in " ".join(done.stderr.split())
    assert not (tmp_path / "first").exists()
    layer = {"targets": {**MFCC, "kind": "layer", "layer": 1}}
    output = tmp_path / "other.safetensors"
    done = script("cluster_frames", layer, "--manifest", manifest, "--output", output)
    assert done.returncode == 2
    assert "--model goes with targets of kind layer" in done.stderr
    assert not output.exists()

"""`scripts/train_vocoder.py`, from features to a vocoder that loads."""

import json
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pandas as pd
import pytest
import torch

from etaflow.audio import write_audio
from etaflow.fetching import fetch_model
from etaflow.manifest import COLUMNS, read_table, write_manifest
from etaflow.store import FeatureMeta, FeatureWriter
from etaflow.vocoder import Generator

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_vocoder.py"
CONFIG = {
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
    "validate_every": 2,
    "validation_utterances": 1,
    "seed": 0,
    "features": "raw",
    "precision": "float32",
    "ema": 0.9,
    "clip_norm": 10.0,
    "checkpoints": {"every": 2, "keep": 1},
}


@pytest.mark.slow
def test_train_vocoder_writes_a_vocoder_and_clears_its_working_state(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "test"]
    rows = []
    for name in names:
        path = tmp_path / f"{name}.wav"
        write_audio(path, random.uniform(-0.3, 0.3, 3400).astype(np.float32))
        split = "test" if name == "test" else "train"
        rows.append([name, "s", "1", split, str(path), 3400, 16_000, "", "0000", "0"])
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path / "manifest.tsv")
    meta = FeatureMeta("tiny", "rev", 2, True, 16_000, 320)
    shard = tmp_path / "0000.h5"
    with FeatureWriter(shard, meta, names, ["s"] * 4, [3400] * 4, [10] * 4, 5) as writer:
        for name in names:
            writer.write(name, random.standard_normal((10, 5)).astype(np.float32))
    output, working = tmp_path / "vocoder", tmp_path / "working"
    model = tmp_path / "model" / "model.json"
    entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    fetch_model("tiny", entry, model.parent)
    command = [sys.executable, SCRIPT, shard, "--config", json.dumps(CONFIG), "--model", model]
    command += ["--manifest", tmp_path / "manifest.tsv"]
    command += ["--output-dir", output, "--working-dir", working]
    run(command, check=True, capture_output=True)
    generator = Generator.from_pretrained(output)
    assert generator(torch.zeros(1, 2, 5)).shape == (1, 1, 640)
    assert generator.trained_on == {
        "model": "tiny",
        "revision": "rev",
        "layer": 2,
        "normalize": True,
        "weights": "untrained",
        "step": generator.trained_on["step"],
        "features": "raw",
    }
    assert generator.trained_on["step"] in (0, 2, 3)
    metrics = read_table(output / "metrics.tsv", numbers=("step",))
    distances = metrics[metrics["metric"] == "valid/mel_distance"]
    assert distances["step"].tolist() == [0, 2, 3]
    assert "train/matching_loss" in set(metrics["metric"])
    assert not working.exists()

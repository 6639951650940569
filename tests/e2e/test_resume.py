"""A dump, an embedding or a training that is killed goes on where it was, to the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from etaflow.audio import check_audio, write_audio
from etaflow.manifest import COLUMNS, write_manifest
from tests.unit.test_speaker import tdnn_folder
from tests.vocoder_tools import CONFIG, make_data, python, training
from tests.workflow_tools import ROOT

pytestmark = pytest.mark.slow
UTTERANCES = 60


def noise_manifest(folder: Path, seconds: int) -> Path:
    """A shard of noise, each utterance a little longer than the one before."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(UTTERANCES):
        path = folder / f"{index}.wav"
        length = 16_000 * seconds + 37 * index
        write_audio(path, generator.normal(0, 0.1, length).astype(np.float32))
        info = check_audio(path)
        rows.append(
            [
                f"u{index}",
                "s",
                "0",
                "train",
                str(path),
                info.num_samples,
                16_000,
                "",
                "0000",
                info.checksum,
            ]
        )
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "0000.tsv")
    return folder / "0000.tsv"


def written(output: Path) -> int:
    try:
        # HDF5's lock would keep the writer out.
        with h5py.File(output.with_name(f".{output.name}.part"), locking=False) as file:
            return int(file["written"][()].sum())
    except (OSError, KeyError):
        return 0


def check_resumes(folder: Path, script: str, *arguments: str | Path) -> None:
    """Kill the script in the middle, run it again, and compare with an undisturbed run."""

    def start(output: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / script, *arguments, "--output", output],
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = folder / "killed.h5"
    process = start(killed)
    while written(killed) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = written(killed)
    assert 10 <= done < UTTERANCES
    assert not killed.exists()
    process = start(killed)
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert f"{done}/{UTTERANCES} utterances" in log
    undisturbed = folder / "undisturbed.h5"
    process = start(undisturbed)
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert killed.read_bytes() == undisturbed.read_bytes()


def test_a_killed_dump_goes_on_to_the_same_bytes(tmp_path: Path, wavlm_tiny: Path) -> None:
    config = {"normalize": False, "dtype": "float16", "batch_seconds": 6, "precision": "float32"}
    check_resumes(
        tmp_path,
        "dump_features.py",
        *("--config", json.dumps(config), "--layer", "3"),
        *("--manifest", noise_manifest(tmp_path, 3), "--model", wavlm_tiny / "model.json"),
    )


def test_killed_embeddings_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    model = tdnn_folder(tmp_path / "ecapa", "ecapa") / "model.json"
    manifest = noise_manifest(tmp_path, 12)
    check_resumes(tmp_path, "embed_speakers.py", "--manifest", manifest, "--model", model)


def test_a_training_killed_three_times_ends_in_the_same_bytes(tmp_path: Path) -> None:
    make_data(tmp_path)
    config = {
        **CONFIG,
        "steps": 120,
        "adversarial_from": 20,
        "validate_every": 50,
    }
    saving = ("--checkpoint-every", "7", "--checkpoints-kept", "2")

    def start(name: str) -> subprocess.Popen[str]:
        job = python(*training(tmp_path, tmp_path / name, config, *saving))
        return subprocess.Popen(job, stderr=subprocess.PIPE, text=True)

    def steps_saved() -> int:
        files = (tmp_path / "killed" / "work").glob("*/checkpoint-*.pt")
        return max((int(path.stem.split("-")[1]) for path in files), default=0)

    chance, saved = random.Random(0), 0
    for _ in range(3):
        process = start("killed")
        goal = saved + chance.randint(7, 28)
        while steps_saved() < goal:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert saved < steps_saved() < 120
        saved = steps_saved()
        assert not (tmp_path / "killed" / "vocoder").exists()
    logs = []
    for name in ("killed", "undisturbed"):
        process = start(name)
        logs.append(process.communicate()[1])
        assert process.returncode == 0, logs[-1]
    assert f"{saved}/120 steps" in logs[0]
    for file in ("generator.safetensors", "config.json", "metrics.tsv"):
        contents = [
            (tmp_path / name / "vocoder" / file).read_bytes() for name in ("killed", "undisturbed")
        ]
        assert contents[0] == contents[1], file

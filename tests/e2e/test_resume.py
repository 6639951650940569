"""A dump that is killed goes on where it was, to the same bytes."""

import json
import os
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
from tests.workflow_tools import ROOT

pytestmark = pytest.mark.slow


def test_a_killed_dump_goes_on_to_the_same_bytes(tmp_path: Path, wavlm_tiny: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(60):
        path = tmp_path / f"{index}.wav"
        write_audio(path, generator.normal(0, 0.1, 48_000 + 37 * index).astype(np.float32))
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
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path / "0000.tsv")

    def dump(output: Path) -> subprocess.Popen[str]:
        config = {
            "normalize": False,
            "dtype": "float16",
            "batch_seconds": 6,
            "precision": "float32",
        }
        return subprocess.Popen(
            [
                sys.executable,
                ROOT / "scripts/dump_features.py",
                "--config",
                json.dumps(config),
                "--layer",
                "3",
                "--manifest",
                tmp_path / "0000.tsv",
                "--model",
                wavlm_tiny / "model.json",
                "--output",
                output,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def written(output: Path) -> int:
        try:
            # HDF5's lock would keep the writer out.
            with h5py.File(output.with_name(f".{output.name}.part"), locking=False) as file:
                return int(file["written"][()].sum())
        except (OSError, KeyError):
            return 0

    killed = tmp_path / "killed.h5"
    process = dump(killed)
    while written(killed) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = written(killed)
    assert 10 <= done < 60
    assert not killed.exists()
    process = dump(killed)
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert f"{done}/60 utterances" in log
    undisturbed = tmp_path / "undisturbed.h5"
    process = dump(undisturbed)
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert killed.read_bytes() == undisturbed.read_bytes()

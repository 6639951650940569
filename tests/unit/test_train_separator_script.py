"""`scripts/train_separator.py`, from tables of mixtures to a separator that loads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from typer.testing import CliRunner

from etaflow.manifest import read_table
from etaflow.models import read_model_info
from etaflow.separation.networks import load_separator
from etaflow.separation.separate import separate
from tests.conftest import ROOT
from tests.separation_training_tools import CONFIG, NETWORK, make_mixtures, training

sys.path.insert(0, str(ROOT / "scripts"))
import train_separator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
KILLED = """
import os, signal, sys
sys.path.insert(0, "scripts")
import train_separator
from etaflow.separation.task import SeparationTask
step = SeparationTask.training_step
def dying(task, batch, number, trainer):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(task, batch, number, trainer)
SeparationTask.training_step = dying
train_separator.app()
"""


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixtures")
    make_mixtures(folder / "train", [(0, 1), (2, 3), (2, 1)], noise=True, sizes=[3_200, 1_500])
    make_mixtures(folder / "more", [(10, 11)], noise=True)
    make_mixtures(folder / "validation", [(4, 5), (6, 7), (8, 9)], noise=True)
    make_mixtures(folder / "others", [(12, 4)], noise=True)
    make_mixtures(folder / "shared", [(12, 3)], noise=True)
    return folder


def run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stderr


def trained(mixtures: Path, output: Path, *options: Any, **changes: Any) -> str:
    """What is said by a training in this process, or the error that it ends with."""
    command = training(mixtures, output, {**CONFIG, **changes}, *options)
    AcceleratorState._reset_state()
    result = CliRunner().invoke(train_separator.app, command[2:])
    if result.exception and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"
    return " ".join(result.output.replace("│", " ").split())


def test_a_separator_is_trained_and_saved_as_a_model(mixtures: Path, tmp_path: Path) -> None:
    options = ("--tracker", "tensorboard", "--tracker-dir", tmp_path / "logs")
    config = {**CONFIG, "validation_mixtures": 2}
    said = run(training(mixtures, tmp_path, config, *options))
    assert "3 mixtures of 4 speakers to train on, 2 of 4 others to validate on; 4 steps" in said
    assert "1 of 3 training mixtures are shorter than 0.25 s and are padded" in said
    assert "kept the weights of step 4 of 4" in said
    folder = tmp_path / "separator"
    files = {"separator.safetensors", "config.json", "model.json", "metrics.tsv"}
    assert {path.name for path in folder.iterdir()} == files
    info, network = load_separator(folder)
    assert (info.name, info.source, info.weights) == ("separator", "run", "trained")
    facts = json.loads((folder / "config.json").read_text())
    assert facts["speakers"] == ["s0", "s1", "s2", "s3"]
    held_out = {f"s{number}" for number in range(4, 10)}
    assert len(facts["validation_speakers"]) == 4  # those of the two that were drawn
    assert set(facts["validation_speakers"]) < held_out
    assert facts["step"] == 4
    assert facts["training"] == {
        **{key: value for key, value in CONFIG.items() if key != "network"},
        "validation_mixtures": 2,
    }
    metrics = read_table(folder / "metrics.tsv", numbers=("step",))
    for name in ("loss", "si_snr", "si_snri"):
        steps = metrics.loc[metrics["metric"] == f"valid/{name}", "step"]
        assert steps.tolist() == [0, 2, 4]
    mixture = np.random.default_rng(0).normal(0, 0.1, 2_000).astype(np.float32)
    assert separate(network, mixture).shape == (2, 2_000)
    assert not (tmp_path / "work").exists()
    assert len(list((tmp_path / "logs").glob("events.out.tfevents.*"))) == 1


def test_a_training_that_was_killed_ends_with_the_same_bytes(
    mixtures: Path, tmp_path: Path
) -> None:
    run(training(mixtures, tmp_path / "whole", {**CONFIG, "ema": 0.9}))
    command = training(mixtures, tmp_path / "cut", {**CONFIG, "ema": 0.9})
    dying = [sys.executable, "-c", KILLED, *command[2:]]
    killed = subprocess.run(dying, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "separator").exists()
    assert len(list((tmp_path / "cut" / "work").rglob("checkpoint-3.pt"))) == 1
    run(command)
    folders = [tmp_path / name / "separator" for name in ("whole", "cut")]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_tuned_separators_say_on_what_they_rest(mixtures: Path, tmp_path: Path) -> None:
    trained(mixtures, tmp_path / "none", steps=0)
    base = tmp_path / "none" / "separator"
    assert read_model_info(base)[0].weights == "untrained"
    other = tmp_path / "mixtures"
    other.mkdir()
    (other / "train").symlink_to(mixtures / "more")
    (other / "validation").symlink_to(mixtures / "others")
    tuned: dict[str, Any] = {"network": {"pretrained": "none"}, "trained": "decoder"}
    given = ("--model", base / "model.json")
    trained(other, tmp_path / "tuned", *given, **tuned)
    folder = tmp_path / "tuned" / "separator"
    # Frozen layers are those of an untrained model.
    assert read_model_info(folder)[0].weights == "untrained"
    states = [load_file(each / "separator.safetensors") for each in (base, folder)]
    changed = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert changed == {"network.decoder.weight"}
    facts = json.loads((folder / "config.json").read_text())
    assert facts["speakers"] == ["s0", "s1", "s10", "s11", "s2", "s3"]
    assert facts["validation_speakers"] == ["s12", *(f"s{number}" for number in range(4, 10))]
    trained(other, tmp_path / "all", *given, **{**tuned, "trained": "all"})
    assert read_model_info(tmp_path / "all" / "separator")[0].weights == "trained"
    # Who was trained on before is not to be validated on, either.
    (other / "validation").unlink()
    (other / "validation").symlink_to(mixtures / "shared")
    said = trained(other, tmp_path / "shared", *given, **tuned)
    assert "1 speaker(s) of --validation are in --mixtures, or were trained on" in said
    assert "by the --model: s3" in said


def test_what_does_not_fit_is_refused(mixtures: Path, tmp_path: Path) -> None:
    other = tmp_path / "mixtures"
    other.mkdir()
    (other / "train").symlink_to(mixtures / "train")
    (other / "validation").symlink_to(mixtures / "shared")
    said = trained(other, tmp_path)
    assert "1 speaker(s) of --validation are in --mixtures" in said
    assert ": s3; validate on others" in said
    for change, message in (
        ({"sample_rate": 16_000}, "mixtures are at 8000 Hz, the separator at 16000 Hz"),
        ({"speakers": 3}, "mixtures have 2 speaker(s), the separator has 3"),
    ):
        assert message in trained(mixtures, tmp_path, network={**NETWORK, **change})
    assert "4; there are 3, null takes all" in trained(mixtures, tmp_path, validation_mixtures=4)
    assert "this network is new" in trained(mixtures, tmp_path, trained="decoder")
    assert not (tmp_path / "separator").exists()

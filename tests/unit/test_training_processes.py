"""A training in two processes, on one machine or two, is the training in one."""

import json
import os
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen, TimeoutExpired, run
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from etaflow.launch import PORTS
from etaflow.manifest import read_table
from etaflow.training import TrainingError
from tests import separation_training_tools, training_tools
from tests.launch_tools import machines, processes, slurm_job
from tests.training_tools import Regression
from tests.vocoder_tools import CONFIG, make_data, python, training

pytestmark = pytest.mark.slow
Start = Callable[..., list[str]]


ROOT = Path(__file__).parents[2]
# Each job of SLURM has a port of its own.
NUMBERS = count(os.getpid())


def is_free(number: int) -> bool:
    """Whether no program of this machine listens at the port of the job of that number."""
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", PORTS[number % len(PORTS)])) != 0


def started(command: list[str], folder: Path) -> CompletedProcess[str]:
    """A command that ended, as if in a SLURM job of two machines.

    One that hangs is aborted, so that its processes write their stacks.
    """
    job = slurm_job(folder, next(filter(is_free, NUMBERS))) | {"PYTHONFAULTHANDLER": "1"}
    pipes: dict[str, Any] = {"stdout": PIPE, "stderr": PIPE, "text": True}
    with Popen(command, cwd=ROOT, env=job, start_new_session=True, **pipes) as process:
        try:
            said = process.communicate(timeout=600)
        except TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            pytest.fail("hung for ten minutes:\n" + "\n".join(process.communicate()))
        return CompletedProcess(command, process.returncode, *said)


def in_two(
    folder: Path, nan_rank: str = "none", starts: Start = processes
) -> CompletedProcess[str]:
    folder.mkdir()
    return started(starts(2, "-m", "tests.training_tools", folder, nan_rank), folder / "bin")


@pytest.mark.parametrize("starts", [processes, machines])
def test_two_processes_see_the_batches_of_one_and_find_its_losses(
    tmp_path: Path, starts: Start
) -> None:
    done = in_two(tmp_path / "two", starts=starts)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / "two" / f"{r}.json").read_text()) for r in "01")
    alone = Regression(plain=True)
    history = training_tools.run(alone, tmp_path / "one", ema=0.9, clip_norm=1.0)
    assert [a + b for a, b in zip(first["seen"], second["seen"], strict=True)] == alone.seen
    assert second["history"] is None
    assert [row[:2] for row in first["history"]] == [list(row[:2]) for row in history]
    for (_, _, found), (_, _, expected) in zip(first["history"], history, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    states = [training_tools.newest(tmp_path / place) for place in ("two/work", "one")]
    for part in ("modules", "averaged", "optimizers"):
        assert_close(states[0]["trainer"][part], states[1]["trainer"][part])


def test_a_nan_in_one_process_ends_all_and_names_its_part_of_the_batch(tmp_path: Path) -> None:
    done = in_two(tmp_path / "two", nan_rank="1")
    assert done.returncode != 0
    alone = Regression(plain=True)
    training_tools.run(alone, tmp_path / "one", steps=5)
    names = ", ".join(alone.seen[4][2:])
    assert "step 4: a loss or gradient is not finite" in done.stderr
    assert f"Utterances of the batch: {names}. Check" in done.stderr
    assert not list((tmp_path / "two").glob("*.json"))
    kept = [path.name for path in (tmp_path / "two" / "work" / "f").glob("*.pt")]
    assert kept == ["checkpoint-3.pt"]


def test_a_vocoder_trained_by_two_processes_is_that_of_one(tmp_path: Path) -> None:
    make_data(tmp_path)
    # Both kinds of discriminators; short of where rounding is magnified.
    discriminator = {"width": 0.0625, "periods": [2, 3], "scales": 2}
    config = {**CONFIG, "discriminator": discriminator, "batch_size": 4, "steps": 6}
    for name, command in (("one", python), ("two", lambda *rest: processes(2, *rest))):
        job = training(tmp_path, tmp_path / name, config)
        done = run(command(*job), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("1 of 3 training utterances are shorter") == 1
        assert done.stderr.count("kept the weights of step") == 1
    tables = [
        read_table(tmp_path / name / "vocoder" / "metrics.tsv", numbers=("step", "value"))
        for name in ("one", "two")
    ]
    assert tables[0][["step", "metric"]].equals(tables[1][["step", "metric"]])
    assert tables[0]["value"].to_numpy() == pytest.approx(tables[1]["value"].to_numpy(), rel=1e-3)
    weights = [
        load_file(tmp_path / name / "vocoder" / "generator.safetensors") for name in ("one", "two")
    ]
    assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-4)


def test_a_separator_trained_on_two_machines_is_that_of_one(tmp_path: Path) -> None:
    pairs = [(0, 1), (2, 3), (2, 1)]
    separation_training_tools.make_mixtures(tmp_path / "train", pairs, noise=True)
    separation_training_tools.make_mixtures(tmp_path / "validation", [(4, 5)], noise=True)
    config = {**separation_training_tools.CONFIG, "ema": 0.9, "keep": "best"}
    tables, weights = {}, {}
    for name, command in (("one", python), ("two", lambda *rest: machines(2, *rest))):
        _, *job = separation_training_tools.training(tmp_path, tmp_path / name, config)
        done = started(command(*job), tmp_path / f"{name}-bin")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("kept the weights of step") == 1
        separator = tmp_path / name / "separator"
        tables[name] = read_table(separator / "metrics.tsv", numbers=("step", "value"))
        weights[name] = load_file(separator / "separator.safetensors")
        assert not (tmp_path / name / "work").exists()
    assert tables["two"][["step", "metric"]].equals(tables["one"][["step", "metric"]])
    expected = pytest.approx(tables["one"]["value"].to_numpy(), rel=1e-4)
    assert tables["two"]["value"].to_numpy() == expected
    assert_close(weights["two"], weights["one"], rtol=1e-3, atol=1e-5)


def test_a_batch_that_processes_cannot_share_is_an_error(tmp_path: Path) -> None:
    make_data(tmp_path)
    job = training(tmp_path, tmp_path, {**CONFIG, "batch_size": 3})
    done = run(processes(2, *job), check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "batch_size 3 is not a multiple of 2 processes" in done.stderr
    assert not (tmp_path / "vocoder").exists()


def test_gpus_without_their_processes_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etaflow.training.trainer.select_device", lambda gpus: None)
    with pytest.raises(TrainingError, match=r"2 GPUs and 1 process.*etaflow.launch --gpus 2"):
        training_tools.run(Regression(), tmp_path, gpus=2)

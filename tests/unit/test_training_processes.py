"""A training in two processes is the training in one."""

import json
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from etaflow.manifest import read_table
from etaflow.training import TrainingError
from tests import training_tools
from tests.training_tools import Regression
from tests.vocoder_tools import CONFIG, make_data, processes, python, training

pytestmark = pytest.mark.slow


def in_two(folder: Path, nan_rank: str = "none") -> CompletedProcess[str]:
    folder.mkdir()
    return run(
        processes(2, "-m", "tests.training_tools", folder, nan_rank),
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_processes_see_the_batches_of_one_and_find_its_losses(tmp_path: Path) -> None:
    done = in_two(tmp_path / "two")
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
    with pytest.raises(TrainingError, match=r"2 GPUs and 1 process.*accelerate launch --multi_gpu"):
        training_tools.run(Regression(), tmp_path, gpus=2)

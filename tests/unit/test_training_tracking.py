"""What TensorBoard shows of a training, read back by TensorBoard's own reader."""

import sys
from pathlib import Path

import pytest

from etaflow.training import TrainingError, loop
from tests.training_tools import Regression, run

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "audio": 0})
    return events.Reload()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SHOWN_EVERY", 2)


def test_tensorboard_has_the_history_and_the_sounds(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "name"
    history = run(Regression(), tmp_path, tracker="tensorboard", tracker_dir=folder)
    events = shown(folder)
    distances = [(row.step, row.value) for row in events.Scalars("valid/distance")]
    expected = [(step, value) for step, name, value in history if name == "valid/distance"]
    assert distances == [(step, pytest.approx(value)) for step, value in expected]
    losses = events.Scalars("train/loss")
    assert [row.step for row in losses] == [2, 4, 6, 8, 10, 12]
    mean = next(value for step, name, value in history if (step, name) == (10, "train/loss"))
    assert sum(row.value for row in losses[:5]) / 5 != pytest.approx(0)
    assert (losses[3].value + losses[4].value) / 2 == pytest.approx(mean, rel=0.5)
    assert events.Tags()["audio"] == ["recording/a", "synthesis/a"]
    assert [row.step for row in events.Audio("recording/a")] == [0]
    sounds = events.Audio("synthesis/a")
    assert [row.step for row in sounds] == [0, 5, 10, 12]
    assert {row.sample_rate for row in sounds} == {8000}
    assert {row.length_frames for row in sounds} == {800}


def test_after_a_resume_every_step_is_shown_once(tmp_path: Path) -> None:
    options = {"tracker": "tensorboard", "tracker_dir": tmp_path / "logs" / "cut"}
    for fail_at in (2, 8, 11):  # goes on from steps 0, 6 and 9; 8 and 10 were shown already
        with pytest.raises(KeyboardInterrupt):
            run(Regression(fail_at=fail_at), tmp_path / "cut", **options)
    run(Regression(), tmp_path / "cut", **options)
    whole = tmp_path / "logs" / "whole"
    run(Regression(), tmp_path / "whole", tracker="tensorboard", tracker_dir=whole)
    one, other = shown(whole), shown(tmp_path / "logs" / "cut")
    for tag in one.Tags()["scalars"]:
        rows = [[(row.step, row.value) for row in each.Scalars(tag)] for each in (one, other)]
        assert rows[0] == rows[1], tag
    for tag in ("recording/a", "synthesis/a"):
        sounds = [
            [(row.step, row.encoded_audio_string) for row in each.Audio(tag)]
            for each in (one, other)
        ]
        assert sounds[0] == sounds[1], tag


def test_a_tracker_changes_nothing_of_the_result(tmp_path: Path) -> None:
    options = {"tracker": "tensorboard", "tracker_dir": tmp_path / "logs" / "x"}
    assert run(Regression(), tmp_path / "a", **options) == run(Regression(), tmp_path / "b")


def test_a_missing_package_and_an_unknown_tracker_are_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    task = Regression()
    with pytest.raises(TrainingError, match=r"'wandb': .*`pip install wandb`"):
        run(task, tmp_path, tracker="wandb", tracker_dir=tmp_path / "logs")
    with pytest.raises(TrainingError, match="'mlflow': known are tensorboard, wandb, comet_ml"):
        run(task, tmp_path, tracker="mlflow", tracker_dir=tmp_path / "logs")
    assert task.seen == []
    assert not (tmp_path / "logs").exists()

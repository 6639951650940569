"""The training loop, on a task small enough to check by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.swa_utils import AveragedModel

from etaflow.device import DeviceError
from etaflow.manifest import read_table
from etaflow.provenance import fingerprint
from etaflow.training import TrainingError, kept_step, write_history
from etaflow.training.batches import Batches
from etaflow.training.checkpoints import alone_in
from etaflow.training.trainer import average_of
from tests.training_tools import STEPS, Regression, equal, newest, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state()  # it keeps the precision for the whole process


@pytest.mark.parametrize("seed", range(4))
def test_a_training_interrupted_three_times_ends_with_the_same_bits(
    tmp_path: Path, seed: int
) -> None:
    options = {"ema": 0.9, "clip_norm": 0.5}
    whole = Regression()
    history = run(whole, tmp_path / "whole", **options)
    for fail_at in sorted(np.random.default_rng(seed).choice(np.arange(1, STEPS), 3, False)):
        with pytest.raises(KeyboardInterrupt):
            run(Regression(fail_at=fail_at), tmp_path / "cut", **options)
    resumed = Regression()
    assert run(resumed, tmp_path / "cut", **options) == history
    assert len(resumed.seen) == STEPS - 3 * (fail_at // 3)  # only what follows the checkpoint
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    assert equal(newest(tmp_path / "whole"), newest(tmp_path / "cut"))
    assert equal(whole.modules["net"].state_dict(), resumed.modules["net"].state_dict())


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    history = run(Regression(), tmp_path)
    again = Regression()
    assert run(again, tmp_path) == history
    assert again.seen == []


def test_history_is_long_and_has_the_first_and_last_step(tmp_path: Path) -> None:
    history = run(Regression(), tmp_path)
    names = ("train/loss", "train/net_gradient_norm", "valid/distance")
    assert [row[:2] for row in history] == [
        (0, "valid/distance"),
        *((step, name) for step in (5, 10, 12) for name in names),
    ]
    write_history(history, tmp_path / "metrics.tsv")
    table = read_table(tmp_path / "metrics.tsv", numbers=("step", "value"))
    assert list(table.columns) == ["step", "metric", "value"]
    assert table["value"].tolist() == [value for _, _, value in history]


def test_the_weights_of_the_lowest_validation_are_kept(tmp_path: Path) -> None:
    task = Regression()
    task.distances = [9.0, 1.0, 3.0, 2.0]  # at steps 0, 5, 10, 12
    run(task, tmp_path)
    until_best = Regression()
    run(until_best, tmp_path / "five", steps=5, validate_every=4)
    kept = task.modules["net"].state_dict()
    assert not equal(kept, newest(tmp_path)["trainer"]["modules"]["net"])
    five = torch.load(tmp_path / "five" / "f" / "checkpoint-5.pt", weights_only=True)
    assert equal(kept, five["trainer"]["modules"]["net"])


def test_the_last_weights_are_kept_if_so_asked(tmp_path: Path) -> None:
    task = Regression()
    task.distances = [9.0, 1.0, 3.0, 2.0]
    history = run(task, tmp_path, keep="last")
    assert equal(task.modules["net"].state_dict(), newest(tmp_path)["trainer"]["modules"]["net"])
    assert [kept_step(history, "distance", keep) for keep in ("best", "last")] == [5, STEPS]


def test_patience_ends_a_training_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    task = Regression()
    # At steps 0, 2, 4, 6, 8: an equal one is no better, and the third in a row is the last.
    task.distances = [9.0, 1.0, 3.0, 1.0, 2.0]
    history = run(task, tmp_path, validate_every=2, patience=3)
    assert task.distances == []
    assert [row[0] for row in history if row[1] == "valid/distance"] == [0, 2, 4, 6, 8]
    assert len(task.seen) == 8
    assert kept_step(history, "distance") == 2
    assert (tmp_path / "f" / "checkpoint-8.pt").is_file()
    until_best = Regression()
    run(until_best, tmp_path / "two", steps=2)
    two = torch.load(tmp_path / "two" / "f" / "checkpoint-2.pt", weights_only=True)
    assert equal(task.modules["net"].state_dict(), two["trainer"]["modules"]["net"])
    again = Regression()
    again.distances = []
    assert run(again, tmp_path, validate_every=2, patience=3) == history
    assert again.seen == []
    assert equal(again.modules["net"].state_dict(), task.modules["net"].state_dict())


def test_patience_that_is_not_used_up_changes_nothing(tmp_path: Path) -> None:
    distances, histories = [5.0, 6.0, 7.0, 4.0, 5.0, 6.0, 3.0], []
    for patience in (None, 3):
        task = Regression()
        task.distances = list(distances)
        histories.append(run(task, tmp_path / str(patience), validate_every=2, patience=patience))
    assert histories[0] == histories[1]


@pytest.mark.parametrize("fail_at", [3, 5, 7])
def test_a_training_that_patience_ends_resumes_with_the_same_bits(
    tmp_path: Path, fail_at: int
) -> None:
    options = {"validate_every": 2, "patience": 2, "ema": 0.9, "checkpoint_every": 1}
    distances = {0: 9.0, 2: 1.0, 4: 5.0, 6: 0.5, 8: 2.0, 10: 3.0, 12: 0.1}
    whole, cut, resumed = Regression(), Regression(fail_at=fail_at), Regression()
    whole.distances, cut.distances = list(distances.values()), list(distances.values())
    history = run(whole, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path / "cut", **options)
    resumed.distances = [value for step, value in distances.items() if step > fail_at]
    assert run(resumed, tmp_path / "cut", **options) == history
    assert history[-1][0] == 10
    states = [
        torch.load(tmp_path / name / "f" / "checkpoint-10.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    assert equal(*states)
    assert equal(whole.modules["net"].state_dict(), resumed.modules["net"].state_dict())


def test_no_steps_leave_the_weights_as_they_are(tmp_path: Path) -> None:
    task = Regression()
    before = {name: value.clone() for name, value in task.modules["net"].state_dict().items()}
    history = run(task, tmp_path, steps=0)
    assert [row[:2] for row in history] == [(0, "valid/distance")]
    assert equal(task.modules["net"].state_dict(), before)


def test_patience_and_what_to_keep_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="patience 0: give 1 validation or more, or null"):
        run(Regression(), tmp_path, patience=0)
    with pytest.raises(TrainingError, match="keep 'worst': known are best, last"):
        run(Regression(), tmp_path, keep="worst")


def test_the_moving_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=average_of(0.3))
    found = []
    for weight in (10.0, 20.0, 40.0, 0.0, 8.0):
        nn.init.constant_(model.weight, weight)
        averaged.update_parameters(model)
        found.append(averaged.module.weight.item())
    # The first is taken as it is; then decays of 2/11, 3/12, 0.3, 0.3.
    second = 10 * 2 / 11 + 20 * 9 / 11
    third = second * 0.25 + 40 * 0.75
    expected = [10, second, third, 0.3 * third, 0.09 * third + 0.7 * 8]
    assert found == pytest.approx(expected)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    task = Regression(plain=True)
    task.distances = [4.0, 3.0, 2.0, 1.0]
    run(task, tmp_path, ema=0.99)
    trainer = newest(tmp_path)["trainer"]
    kept = {f"module.{name}": value for name, value in task.modules["net"].state_dict().items()}
    assert equal(kept, {n: v for n, v in trainer["averaged"].items() if n != "n_averaged"})
    assert not torch.equal(kept["module.0.weight"], trainer["modules"]["net"]["0.weight"])
    assert int(trainer["averaged"]["n_averaged"]) == STEPS


def test_gradients_are_clipped_to_the_norm_that_is_recorded(tmp_path: Path) -> None:
    norms: list[float] = []

    class Record(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            gradients = [p.grad.flatten() for p in self.param_groups[0]["params"]]
            norms.append(float(torch.cat(gradients).norm()))

    tasks = [Regression(plain=True), Regression(plain=True)]
    for task in tasks:
        task.optimizers["net"] = Record(task.modules["net"].parameters(), lr=1.0)
    whole = run(tasks[0], tmp_path / "whole", steps=1)
    norm = {name: value for _, name, value in whole}["train/net_gradient_norm"]
    assert norms == [pytest.approx(norm)]
    assert norm > 1
    clipped = run(tasks[1], tmp_path / "clipped", steps=1, clip_norm=0.5)
    assert norms[1] == pytest.approx(0.5, rel=1e-4)
    assert clipped == whole  # before clipping


def test_bfloat16_computes_roughly_and_keeps_float32(tmp_path: Path) -> None:
    exact, rough = Regression(plain=True), Regression(plain=True)
    run(exact, tmp_path / "exact")
    AcceleratorState._reset_state()
    dtypes = []
    rough.modules["net"][0].register_forward_hook(lambda m, i, out: dtypes.append(out.dtype))
    run(rough, tmp_path / "rough", precision="bfloat16")
    assert dtypes.count(torch.bfloat16) == STEPS
    assert set(dtypes[STEPS:]) <= {torch.float32, torch.bfloat16}
    weights = [task.modules["net"][1].weight for task in (exact, rough)]
    assert weights[1].dtype == torch.float32
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, atol=0.05, rtol=0.05)


def test_precisions_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="float16 needs a GPU; on the CPU say precision bf"):
        run(Regression(), tmp_path, precision="float16")
    with pytest.raises(TrainingError, match="precision 'half': known are float32, bfloat16, fl"):
        run(Regression(), tmp_path, precision="half")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_nan_loss_names_step_and_utterances(tmp_path: Path, workers: int) -> None:
    task = Regression(nan_at=4)
    with pytest.raises(TrainingError, match=r"step 4: a loss or gradient is not finite.*") as error:
        run(task, tmp_path, workers=workers)
    assert f"Utterances of the batch: {', '.join(task.seen[4])}." in str(error.value)
    assert [path.name for path in (tmp_path / "f").glob("*.pt")] == ["checkpoint-3.pt"]


def test_a_validation_without_the_selecting_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no finite eer"):
        run(Regression(), tmp_path, select="eer")


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for keep, steps in ((1, [12]), (3, [6, 9, 12]), (9, [3, 6, 9, 12])):
        run(Regression(), tmp_path / str(keep), checkpoints_kept=keep)
        files = (tmp_path / str(keep) / "f").glob("checkpoint-*")
        assert sorted(int(path.stem.split("-")[1]) for path in files) == steps


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history = run(Regression(), tmp_path)
    before = newest(tmp_path)
    path = tmp_path / "f" / "checkpoint-12.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        place = content.find(before["trainer"]["modules"]["net"]["0.weight"].numpy().tobytes())
        assert place > 0
        content[place] ^= 1
    path.write_bytes({"cut": content[:-100], "flipped": content, "empty": b""}[damage])
    again = Regression()
    assert run(again, tmp_path) == history
    assert len(again.seen) == 3  # steps 9, 10, 11
    said = capsys.readouterr().err
    assert "checkpoint-12.pt: damaged (" in said
    assert "going on from step 9" in said
    assert equal(newest(tmp_path), before)


def test_checkpoints_that_are_all_damaged_are_named(tmp_path: Path) -> None:
    run(Regression(), tmp_path)
    for path in (tmp_path / "f").glob("*.pt"):
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"(?s)-12\.pt.*-9\.pt.*delete .*f to start over"):
        run(Regression(), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_given_gpu_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        run(Regression(), tmp_path, gpus=1)


def test_another_process_gives_the_same_batches(tmp_path: Path) -> None:
    alone, helped = Regression(), Regression()
    history = run(alone, tmp_path / "0")
    assert run(helped, tmp_path / "1", workers=1) == history


def test_every_epoch_has_every_item_once_in_another_order() -> None:
    draws = [draw for batch in Batches(7, 4, 0, 0, 7) for draw in batch]
    epochs = [[index for index, _ in draws[start : start + 7]] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({seed for _, seed in draws}) == 28
    assert list(Batches(7, 4, 0, 3, 7)) == list(Batches(7, 4, 0, 0, 7))[3:]
    assert list(Batches(7, 4, 1, 0, 7)) != list(Batches(7, 4, 0, 0, 7))


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_processes_share_the_batches_of_one(processes: int) -> None:
    parts = [list(Batches(7, 6, 0, 2, 9, rank, processes)) for rank in range(processes)]
    together = [[draw for part in batch for draw in part] for batch in zip(*parts, strict=True)]
    assert together == list(Batches(7, 6, 0, 2, 9))


def test_a_batch_may_be_larger_than_the_data() -> None:
    (batch,) = Batches(2, 5, 0, 0, 1)
    assert sorted(index for index, _ in batch)[1:4] in ([0, 0, 1], [0, 1, 1])


def test_fingerprint_changes_with_config_and_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("12")
    second.write_text("3")
    names = {fingerprint("{}"), fingerprint("{1}"), fingerprint("{}", first, second)}
    original = fingerprint("{}", first, second)
    first.write_text("1")
    second.write_text("23")  # the same bytes, cut elsewhere
    names.add(fingerprint("{}", first, second))
    assert len(names) == 4
    first.write_text("12")
    second.write_text("3")
    assert fingerprint("{}", first, second) == original
    assert len(original) == 16


def test_a_training_that_still_runs_elsewhere_is_not_joined(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "f"),
        pytest.raises(TrainingError, match="in use: the same training still runs"),
    ):
        run(Regression(), tmp_path)
    assert run(Regression(), tmp_path)

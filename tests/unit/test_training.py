"""The training loop, on a task small enough to check by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from etaflow.device import DeviceError
from etaflow.manifest import read_table
from etaflow.provenance import fingerprint
from etaflow.training import TrainingError, _alone_in, _Batches, train, write_history

STEPS = 12


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Items:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, draw: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        index, seed = draw
        noise = np.random.default_rng(seed).standard_normal(3, dtype=np.float32)
        return {"utterance_id": f"u{index}", "x": torch.from_numpy(noise + index)}


class Regression:
    """A network with dropout that learns the sum of its input."""

    model = "net"

    def __init__(self, fail_at: int | None = None, nan_at: int | None = None) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.modules: dict[str, nn.Module] = {"net": net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "net": torch.optim.AdamW(net.parameters(), lr=1e-2)
        }
        self.dataset, self.batch_size = Items(), 4
        self.fail_at, self.nan_at = fail_at, nan_at
        self.distances: list[float] | None = None
        self.seen: list[list[str]] = []

    def training_step(
        self, batch: dict[str, Any], step: int, accelerator: Any
    ) -> dict[str, torch.Tensor]:
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(batch["utterance_id"])
        error = self.modules["net"](batch["x"])[:, 0] - batch["x"].sum(1)
        loss = error.square().mean()
        if step == self.nan_at:
            loss = loss * torch.nan
        self.optimizers["net"].zero_grad()
        accelerator.backward(loss)
        self.optimizers["net"].step()
        return {"loss": loss}

    def validate(self, device: torch.device) -> dict[str, float]:
        assert not self.modules["net"].training
        if self.distances is not None:
            return {"distance": self.distances.pop(0)}
        x = torch.arange(12.0, device=device).reshape(4, 3)
        return {"distance": float((self.modules["net"](x)[:, 0] - x.sum(1)).abs().mean())}


def run(task: Regression, working_dir: Path, **changes: Any) -> Any:
    settings = {
        "steps": STEPS,
        "seed": 5,
        "working_dir": working_dir,
        "fingerprint": "f",
        "validate_every": 5,
        "checkpoint_every": 3,
        "select": "distance",
    }
    return train(task, **{**settings, **changes})


@pytest.mark.parametrize("fail_at", [1, 4, 7, 11])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, fail_at: int) -> None:
    whole = Regression()
    history = run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Regression(fail_at=fail_at), tmp_path / "cut")
    resumed = Regression()
    assert run(resumed, tmp_path / "cut") == history
    assert len(resumed.seen) == STEPS - 3 * (fail_at // 3)  # only what follows the checkpoint
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    states = [
        torch.load(tmp_path / name / "f" / "checkpoint.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    assert states[0]["step"] == states[1]["step"] == STEPS
    for name, value in states[0]["modules"]["net"].items():
        assert torch.equal(value, states[1]["modules"]["net"][name]), name
    for key, moments in states[0]["optimizers"]["net"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, states[1]["optimizers"]["net"]["state"][key][name])
    for name, value in whole.modules["net"].state_dict().items():
        assert torch.equal(value, resumed.modules["net"].state_dict()[name]), name


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    history = run(Regression(), tmp_path)
    again = Regression()
    assert run(again, tmp_path) == history
    assert again.seen == []


def test_history_is_long_and_has_the_first_and_last_step(tmp_path: Path) -> None:
    history = run(Regression(), tmp_path)
    assert [row[:2] for row in history] == [
        (0, "valid/distance"),
        *((step, name) for step in (5, 10, 12) for name in ("train/loss", "valid/distance")),
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
    run(until_best, tmp_path / "five", steps=5)
    last = torch.load(tmp_path / "f" / "checkpoint.pt", weights_only=True)["modules"]["net"]
    kept = task.modules["net"].state_dict()
    assert not torch.equal(kept["0.weight"], last["0.weight"])
    five = torch.load(tmp_path / "five" / "f" / "checkpoint.pt", weights_only=True)
    assert torch.equal(kept["0.weight"], five["modules"]["net"]["0.weight"])


def test_a_nan_loss_names_step_and_utterances(tmp_path: Path) -> None:
    task = Regression(nan_at=4)
    with pytest.raises(TrainingError, match=r"step 4: a loss is not finite.*u\d, u\d, u\d, u\d"):
        run(task, tmp_path)
    state = torch.load(tmp_path / "f" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3  # the last sound state


def test_a_validation_without_the_selecting_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no finite eer"):
        run(Regression(), tmp_path, select="eer")


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt.*delete it"):
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
    draws = [draw for batch in _Batches(7, 4, 0, 0, 7) for draw in batch]
    epochs = [[index for index, _ in draws[start : start + 7]] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({seed for _, seed in draws}) == 28
    assert list(_Batches(7, 4, 0, 3, 7)) == list(_Batches(7, 4, 0, 0, 7))[3:]
    assert list(_Batches(7, 4, 1, 0, 7)) != list(_Batches(7, 4, 0, 0, 7))


def test_a_batch_may_be_larger_than_the_data() -> None:
    (batch,) = _Batches(2, 5, 0, 0, 1)
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
        _alone_in(tmp_path / "f"),
        pytest.raises(TrainingError, match="in use: the same training still runs"),
    ):
        run(Regression(), tmp_path)
    assert run(Regression(), tmp_path)

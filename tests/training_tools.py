"""A task small enough to check by hand; as a program, its training in one of several processes."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from etaflow.training import Settings, train
from etaflow.training.task import Metrics, Sounds

STEPS = 12
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "seed": 5,
    "validate_every": 5,
    "checkpoint_every": 3,
    "select": "distance",
}


class Items:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, draw: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        index, seed = draw
        noise = np.random.default_rng(seed).standard_normal(3, dtype=np.float32)
        return {"utterance_id": f"u{index}", "x": torch.from_numpy(noise + index)}


class Killable:
    """Before a task, so that it ends as if interrupted in step `fail_at`."""

    fail_at: int | None = None

    def training_step(self, batch: dict[str, Any], step: int, trainer: Any) -> Any:
        if step == self.fail_at:
            raise KeyboardInterrupt
        return super().training_step(batch, step, trainer)  # type: ignore[misc]


class Regression:
    """A network, with dropout and a batch norm unless `plain`, that learns the sum of its input."""

    model = "net"
    sample_rate = 8000

    def __init__(
        self, fail_at: int | None = None, nan_at: int | None = None, plain: bool = False
    ) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1)]
        net = nn.Sequential(*(layers[::3] if plain else layers))
        self.modules: dict[str, nn.Module] = {"net": net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "net": torch.optim.AdamW(net.parameters(), lr=1e-2)
        }
        self.dataset, self.batch_size = Items(), 4
        self.fail_at, self.nan_at = fail_at, nan_at
        self.distances: list[float] | None = None
        self.seen: list[list[str]] = []

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(batch["utterance_id"])
        error = self.modules["net"](batch["x"])[:, 0] - batch["x"].sum(1)
        loss = error.square().mean()
        if step == self.nan_at:
            loss = loss * torch.nan
        trainer.update("net", loss)
        return {"loss": loss}

    def validate(self, model: nn.Module, device: torch.device) -> tuple[Metrics, Sounds]:
        assert not model.training
        if self.distances is not None:
            return {"distance": self.distances.pop(0)}, {}
        x = torch.arange(12.0, device=device).reshape(4, 3)
        output = model(x)[:, 0]
        assert output.dtype == torch.float32
        sounds = {"synthesis/a": torch.full((800,), output[0].item()).tanh()}
        return {"distance": float((output - x.sum(1)).abs().mean())}, sounds

    def recordings(self) -> Sounds:
        return {"recording/a": torch.linspace(-1, 1, 800)}


def run(task: Regression, working_dir: Path, **changes: Any) -> Any:
    own = {name: changes.pop(name) for name in Settings.__annotations__ if name in changes}
    settings = Settings(**{**SETTINGS, **own})
    return train(task, settings, working_dir=working_dir, fingerprint="f", **changes)


def newest(working_dir: Path) -> dict[str, Any]:
    """The state in the last checkpoint of a whole run."""
    return torch.load(working_dir / "f" / f"checkpoint-{STEPS}.pt", weights_only=True)


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


if __name__ == "__main__":
    folder, nan_rank = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    task = Regression(nan_at=4 if rank == nan_rank else None, plain=True)
    history = run(task, folder / "work", ema=0.9, clip_norm=1.0)
    seen = {"history": history, "seen": task.seen}
    (folder / f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")

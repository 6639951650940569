"""What a training has shown so far."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from etaflow.manifest import write_table
from etaflow.training.task import Metrics, TrainingError

History = list[tuple[int, str, float]]  # step (updates made), metric, value
KEPT = ("best", "last")


class Means:
    """Running means of named values."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Metrics) -> None:
        """Count one value each."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def take(self) -> Metrics:
        """The mean of each value since the last call."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


class Record:
    """The history, running means, and the weights to keep (on the CPU)."""

    def __init__(self, select: str, patience: int | None = None, keep: str = "best") -> None:
        """Start one; see `Settings` for what is given.

        Raises:
            TrainingError: `patience` is less than 1, or `keep` unknown.
        """
        if patience is not None and patience < 1:
            raise TrainingError(f"patience {patience}: give 1 validation or more, or null")
        if keep not in KEPT:
            raise TrainingError(f"keep {keep!r}: known are {', '.join(KEPT)}")
        self._select, self._patience, self._keep = select, patience, keep
        self.history: History = []
        self.best, self.weights = math.inf, dict[str, torch.Tensor]()
        self.since_validation, self.since_shown = Means(), Means()

    def add_losses(self, losses: Metrics) -> None:
        """Count the losses of a step."""
        self.since_validation.add(losses)
        self.since_shown.add(losses)

    def add_validation(self, step: int, metrics: Metrics, model: nn.Module) -> None:
        """Enter a validation; keep the weights if they are the best so far, or the last count."""
        value = metrics.get(self._select, math.nan)
        if not math.isfinite(value):
            raise TrainingError(f"step {step}: validation has no finite {self._select}: {metrics}")
        losses = self.since_validation.take()
        self.history += [(step, f"train/{name}", loss) for name, loss in losses.items()]
        self.history += [(step, f"valid/{name}", float(each)) for name, each in metrics.items()]
        better = value < self.best
        if better:
            self.best = float(value)
        if better or self._keep == "last":
            state = model.state_dict()
            self.weights = {name: each.to("cpu", copy=True) for name, each in state.items()}

    def is_over(self) -> bool:
        """Whether validations have not got better for so long that patience is at its end."""
        rows = _validations(self.history, self._select)
        if self._patience is None or not rows:
            return False
        return len(rows) - 1 - rows.index(min(rows, key=_value)) >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values and tensors."""
        return {
            "history": self.history,
            "best": self.best,
            "weights": self.weights,
            "since_validation": self.since_validation.sums,
            "since_shown": self.since_shown.sums,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.history, self.best = state["history"], state["best"]
        self.weights = state["weights"]
        self.since_validation.sums = state["since_validation"]
        self.since_shown.sums = state["since_shown"]


def _validations(history: History, select: str) -> list[tuple[int, str, float]]:
    return [row for row in history if row[1] == f"valid/{select}"]


def _value(row: tuple[int, str, float]) -> float:
    return row[2]


def kept_step(history: History, select: str, keep: str = "best") -> int:
    """After how many steps the weights were that a training kept."""
    rows = _validations(history, select)
    return (min(rows, key=_value) if keep == "best" else rows[-1])[0]


def write_history(history: History, path: str | Path) -> None:
    """Write `metrics.tsv`: the columns step, metric, value."""
    write_table(pd.DataFrame(history, columns=["step", "metric", "value"]), path)

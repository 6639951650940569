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
    """The history, running means, and the best weights (on the CPU)."""

    def __init__(self, select: str) -> None:
        self._select = select
        self.history: History = []
        self.best, self.weights = math.inf, dict[str, torch.Tensor]()
        self.since_validation, self.since_shown = Means(), Means()

    def add_losses(self, losses: Metrics) -> None:
        """Count the losses of a step."""
        self.since_validation.add(losses)
        self.since_shown.add(losses)

    def add_validation(self, step: int, metrics: Metrics, model: nn.Module) -> None:
        """Enter a validation; keep the weights if none was better."""
        value = metrics.get(self._select, math.nan)
        if not math.isfinite(value):
            raise TrainingError(f"step {step}: validation has no finite {self._select}: {metrics}")
        losses = self.since_validation.take()
        self.history += [(step, f"train/{name}", loss) for name, loss in losses.items()]
        self.history += [(step, f"valid/{name}", float(each)) for name, each in metrics.items()]
        if value < self.best:
            state = model.state_dict()
            self.best = float(value)
            self.weights = {name: each.to("cpu", copy=True) for name, each in state.items()}

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


def write_history(history: History, path: str | Path) -> None:
    """Write `metrics.tsv`: the columns step, metric, value."""
    write_table(pd.DataFrame(history, columns=["step", "metric", "value"]), path)

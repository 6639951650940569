"""A task on its devices: precision, processes, moving average, updates."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from etaflow.device import select_device
from etaflow.training.task import Metrics, Sounds, Task, TrainingError
from etaflow.training.tracking import check_tracker

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: updates in all.
        seed: of the order of the data, of its random parts, and of PyTorch in each step.
        validate_every: steps between validations; there is one before the first step and one after
            the last, too.
        select: the validation metric, lower is better, that decides which weights are kept.
        checkpoint_every: steps between checkpoints; there is one after the last step, too.
        checkpoints_kept: of which so many of the newest stay.
        precision: `float32`, or `bfloat16` or `float16` for what modules compute (autocast);
            weights, losses and validation are in float32.
        ema: validate and keep an exponential moving average of the weights with this decay, or the
            weights as they are (None). Step n, from 0, uses min(ema, (1 + n) / (10 + n)).
        clip_norm: scale the gradients of an optimiser to at most this norm, or leave them (None).
        patience: end once so many validations in a row brought none better, or never before the
            last step (None).
        keep: the weights of the `best` validation, or of the `last`.
    """

    steps: int
    seed: int
    validate_every: int
    select: str
    checkpoint_every: int
    checkpoints_kept: int = 2
    precision: str = "float32"
    ema: float | None = None
    clip_norm: float | None = None
    patience: int | None = None
    keep: str = "best"


def make_accelerator(
    precision: str, gpus: int = 0, tracker: str | None = None, tracker_dir: Path | None = None
) -> Accelerator:
    """An accelerator for a job that was given so many GPUs, in one process a GPU.

    GPUs and processes are those of all machines together.

    Raises:
        TrainingError: a precision that is unknown or that the CPU has not, a tracker whose package
            is missing, or not as many processes as GPUs.
        DeviceError: a GPU was given and none can be seen.
    """
    if precision not in PRECISIONS:
        raise TrainingError(f"precision {precision!r}: known are {', '.join(PRECISIONS)}")
    if precision == "float16" and gpus == 0:
        raise TrainingError(
            "precision float16 needs a GPU; on the CPU say precision bfloat16 or float32"
        )
    if tracker:
        check_tracker(tracker)
    select_device(gpus)
    accelerator = Accelerator(
        cpu=gpus == 0,
        mixed_precision=PRECISIONS[precision],
        log_with=tracker,
        project_dir=tracker_dir.parent if tracker_dir else None,
    )
    if gpus and accelerator.num_processes != gpus:
        raise TrainingError(
            f"{gpus} GPUs and {accelerator.num_processes} process(es): start one process a GPU by "
            f"`python -m etaflow.launch --gpus {gpus} -- SCRIPT …`"
        )
    return accelerator


def average_of(decay: float) -> Callable[[Any, Any, Any], None]:
    """The moving average that `AveragedModel` takes, with a decay that rises in the first steps."""

    def update(averaged: Any, current: Any, count: torch.Tensor) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return update


class Trainer:
    """A task on its devices; what its training step is given."""

    def __init__(self, task: Task, settings: Settings, accelerator: Accelerator) -> None:
        self._task, self._settings, self._accelerator = task, settings, accelerator
        # A copy from before autocast and DDP are put around the model: it is validated in float32,
        # and by one process alone. A decay of 0 makes the average the weights themselves.
        self.averaged = AveragedModel(
            task.modules[task.model].to(accelerator.device),
            multi_avg_fn=average_of(settings.ema or 0.0),
        ).requires_grad_(False)
        self.averaged.eval()
        task.modules = {name: accelerator.prepare(each) for name, each in task.modules.items()}
        task.optimizers = {
            name: accelerator.prepare(each) for name, each in task.optimizers.items()
        }
        self._norms: dict[str, torch.Tensor] = {}

    def plain(self, name: str) -> nn.Module:
        """A module without what several processes wrap around it.

        Gradients from calls of it are not averaged over processes: it is for calls with frozen
        weights, which the wrapper would wait for.
        """
        module: nn.Module = self._accelerator.unwrap_model(self._task.modules[name])
        return module

    def update(self, name: str, loss: torch.Tensor) -> None:
        """One step of the optimiser `name` down the gradient of a loss, clipped if so set."""
        for optimizer in self._task.optimizers.values():
            optimizer.zero_grad()
        self._accelerator.backward(loss)
        optimizer = self._task.optimizers[name]
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        limit = math.inf if self._settings.clip_norm is None else self._settings.clip_norm
        self._norms[f"{name}_gradient_norm"] = self._accelerator.clip_grad_norm_(parameters, limit)
        optimizer.step()

    def step(self, batch: dict[str, Any], step: int) -> Metrics:
        """One training step; the losses and gradient norms, averaged over processes.

        Raises:
            TrainingError: one of them is NaN or infinite, in any process.
        """
        self._norms.clear()
        for module in self._task.modules.values():
            module.train()
        rank = self._accelerator.process_index
        torch.manual_seed(_seed_of(self._settings.seed, step, rank))
        device = self._accelerator.device
        losses = self._task.training_step(
            send_to_device(batch, device, non_blocking=True), step, self
        )
        losses |= self._norms
        self.averaged.update_parameters(self.plain(self._task.model))
        numbers = torch.stack([loss.detach().float().to(device) for loss in losses.values()])
        every = self._accelerator.gather(numbers[None])
        values = dict(zip(losses, every.mean(dim=0).tolist(), strict=True))
        sound = {name: value for name, value in values.items() if math.isfinite(value)}
        overflowed = values.keys() - sound.keys()
        if overflowed and not (overflowed <= self._norms.keys() and self._can_lower_scale()):
            # Gradients are shared by all processes, losses are each one's own.
            own = every[:, [name not in self._norms for name in losses]].isfinite().all(dim=1)
            named = bool(own.all()) or not bool(own[rank])
            names = gather_object(list(batch["utterance_id"]) if named else [])
            raise TrainingError(
                f"step {step}: a loss or gradient is not finite: {values}. Utterances of the "
                f"batch: {', '.join(names)}. Check their audio, or lower the learning rate."
            )
        return sound

    def _can_lower_scale(self) -> bool:
        """Whether this is float16, which leaves out updates that overflow and lowers its scale."""
        scaler = self._accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def validate(self) -> tuple[Metrics, Sounds]:
        """The task's validation of the weights that would be kept now."""
        with torch.no_grad():
            return self._task.validate(self.averaged.module, self._accelerator.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes."""
        scaler = self._accelerator.scaler
        return {
            "modules": {name: self.plain(name).state_dict() for name in self._task.modules},
            "optimizers": {name: each.state_dict() for name, each in self._task.optimizers.items()},
            "averaged": self.averaged.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name in self._task.modules:
            self.plain(name).load_state_dict(state["modules"][name])
        for name, optimizer in self._task.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.averaged.load_state_dict(state["averaged"])
        if self._accelerator.scaler:
            self._accelerator.scaler.load_state_dict(state["scaler"])


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])

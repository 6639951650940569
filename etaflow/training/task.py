"""What the loop asks of a task."""

from typing import Any, Protocol

import torch
from torch import nn

Metrics = dict[str, float]
Sounds = dict[str, torch.Tensor]  # name: waveform (T,)


class TrainingError(RuntimeError):
    """A training that cannot go on."""


class Task(Protocol):
    """What is trained, on what, and how well it does.

    Attributes:
        modules: every module with weights; `train` puts them on the device and may wrap them, so
            the task reaches them through this dictionary only.
        optimizers: likewise.
        model: the name of the module that the training is for; its best weights are kept.
        dataset: `dataset[index, seed]` is an item, a dictionary with `utterance_id`; whatever is
            random in it comes from `numpy.random.default_rng(seed)`.
        batch_size: items a batch, over all processes.
        sample_rate: of what `recordings` and `validate` give to listen to, Hz.
    """

    model: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    dataset: Any
    batch_size: int
    sample_rate: int

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        """Update the modules by `trainer.update`; return the losses as scalars, for the record.

        Calls of a module compute in the precision of the training and give float32, so losses are
        float32. `trainer.plain` is for calls that shall leave no gradient in a module.
        """

    def validate(self, model: nn.Module, device: torch.device) -> tuple[Metrics, Sounds]:
        """Metrics of `model` on held-out data, and what it makes of a few fixed utterances.

        Called in evaluation mode, without gradients, in float32 and in the main process only.
        """

    def recordings(self) -> Sounds:
        """What to compare the sounds of `validate` with; asked for once."""

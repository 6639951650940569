"""One training loop for all tasks: exact to resume, loud when it fails.

The working state is `working_dir/fingerprint/checkpoint.pt`: step, weights, optimisers, the best
weights so far and the history, replaced as a whole. Batch number i and the random numbers of step i
are pure functions of the seed and i, so that nothing else need be kept and a resumed training ends
with the bits of an uninterrupted one (on the CPU; GPU kernels are not that strict).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader, Sampler

from etaflow.atomic import atomic_file
from etaflow.device import select_device
from etaflow.manifest import write_table
from etaflow.progress import bar

Draw = tuple[int, tuple[int, int]]
History = list[tuple[int, str, float]]  # step (updates made), metric, value


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
        batch_size: items a batch.
    """

    model: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    dataset: Any
    batch_size: int

    def training_step(
        self, batch: dict[str, Any], step: int, accelerator: Any
    ) -> dict[str, torch.Tensor]:
        """Update the modules by a batch; return the losses as scalars, for the record."""

    def validate(self, device: torch.device) -> dict[str, float]:
        """Metrics on held-out data; called in evaluation mode, without gradients."""


class _Batches(Sampler[list[Draw]]):
    """Batch number i for i in [start, stop), reshuffled each epoch.

    An epoch that a batch does not divide goes on into the next, so every item is seen equally
    often, and a batch may be larger than the data.
    """

    def __init__(self, size: int, batch_size: int, seed: int, start: int, stop: int) -> None:
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._steps = range(start, stop)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, epoch)).permutation(self._size)

    def _draw(self, position: int) -> Draw:
        epoch, place = divmod(position, self._size)
        return int(self._order(epoch)[place]), (self._seed, position)

    def _batch(self, step: int) -> list[Draw]:
        first = step * self._batch_size
        return [self._draw(position) for position in range(first, first + self._batch_size)]

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self._batch, self._steps)


class _Record:
    """What a training has shown so far: history, running losses, and the best weights (CPU)."""

    def __init__(self, select: str) -> None:
        self._select = select
        self.history: History = []
        self.best, self.weights = math.inf, dict[str, torch.Tensor]()
        self._sums: dict[str, tuple[float, int]] = {}

    def add_losses(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def add_validation(self, step: int, metrics: dict[str, float], model: nn.Module) -> None:
        value = metrics.get(self._select, math.nan)
        if not math.isfinite(value):
            raise TrainingError(f"step {step}: validation has no finite {self._select}: {metrics}")
        losses = ((f"train/{name}", total / n) for name, (total, n) in self._sums.items())
        self.history += [(step, name, loss) for name, loss in losses]
        self.history += [(step, f"valid/{name}", float(each)) for name, each in metrics.items()]
        self._sums.clear()
        if value < self.best:
            state = model.state_dict()
            self.best = float(value)
            self.weights = {name: each.to("cpu", copy=True) for name, each in state.items()}


def _finite(losses: dict[str, torch.Tensor], step: int, batch: dict[str, Any]) -> dict[str, float]:
    numbers = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    values = dict(zip(losses, numbers, strict=True))
    if not all(map(math.isfinite, numbers)):
        raise TrainingError(
            f"step {step}: a loss is not finite: {values}. Utterances of the batch: "
            f"{', '.join(batch['utterance_id'])}. Check their audio, or lower the learning rate."
        )
    return values


def _save(path: Path, step: int, task: Task, accelerator: Accelerator, record: _Record) -> None:
    modules = {name: accelerator.unwrap_model(module) for name, module in task.modules.items()}
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizers": {name: each.state_dict() for name, each in task.optimizers.items()},
        "record": vars(record),
    }
    with atomic_file(path) as part:
        torch.save(state, part)


def _load(path: Path, task: Task, accelerator: Accelerator, record: _Record) -> int:
    """Take up a checkpoint; return how many steps it has made."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, module in task.modules.items():
            accelerator.unwrap_model(module).load_state_dict(state["modules"][name])
        for name, optimizer in task.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        vars(record).update(state["record"])
        return int(state["step"])
    except Exception as error:
        raise TrainingError(
            f"{path}: not a checkpoint of this training ({type(error).__name__}); delete it to "
            "start over"
        ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, which no other process may then work in."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock").acquire(blocking=False):
            yield
    except Timeout as error:
        raise TrainingError(
            f"{folder} is in use: the same training still runs in another process; end that first"
        ) from error


def train(
    task: Task,
    *,
    steps: int,
    seed: int,
    working_dir: str | Path,
    fingerprint: str,
    validate_every: int,
    checkpoint_every: int,
    select: str,
    gpus: int = 0,
    workers: int = 0,
) -> History:
    """Train, and leave the best weights of `task.model` in its module.

    Takes up from the checkpoint under `working_dir/fingerprint` if there is one. Removing that
    folder once the results are safe is the caller's part.

    Args:
        task: what to train.
        steps: updates in all.
        seed: of the order of the data, of its random parts, and of PyTorch in each step.
        working_dir: where the working state lives, outside of declared outputs.
        fingerprint: of everything that the result depends on (`etaflow.provenance.fingerprint`).
        validate_every: steps between validations; there is one before the first step and one
            after the last, too.
        checkpoint_every: steps between checkpoints; there is one after the last step, too.
        select: the validation metric, lower is better, that decides which weights are kept.
        gpus: GPUs given to this job.
        workers: processes that prepare batches; 0 does it in this one.

    Returns:
        Rows (steps made, metric, value): `train/NAME` is the mean of a loss since the row before,
        `valid/NAME` a validation metric.

    Raises:
        TrainingError: a loss or the selecting metric is NaN or infinite, or the checkpoint is not
            one of this task, or another process is at it.
        DeviceError: a GPU was given and none can be seen.
    """
    select_device(gpus)
    accelerator = Accelerator(cpu=gpus == 0, mixed_precision="no")
    task.modules = {name: accelerator.prepare(each) for name, each in task.modules.items()}
    task.optimizers = {name: accelerator.prepare(each) for name, each in task.optimizers.items()}
    model = accelerator.unwrap_model(task.modules[task.model])
    path = Path(working_dir) / fingerprint / "checkpoint.pt"
    record = _Record(select)

    def validate(step: int) -> None:
        for module in task.modules.values():
            module.eval()
        with torch.no_grad():
            record.add_validation(step, task.validate(accelerator.device), model)

    with _alone_in(path.parent):
        if path.exists():
            start = _load(path, task, accelerator, record)
        else:
            start = 0
            validate(start)
        loader: DataLoader[Any] = DataLoader(
            task.dataset,
            batch_sampler=_Batches(len(task.dataset), task.batch_size, seed, start, steps),
            num_workers=workers,
        )
        with bar(steps, f"training {task.model}", "steps", initial=start) as shown:
            for step, batch in enumerate(loader, start):
                for module in task.modules.values():
                    module.train()
                torch.manual_seed(_seed_of(seed, step))
                batch = send_to_device(batch, accelerator.device)
                losses = _finite(task.training_step(batch, step, accelerator), step, batch)
                record.add_losses(losses)
                done = step + 1
                if done % validate_every == 0 or done == steps:
                    validate(done)
                if done % checkpoint_every == 0 or done == steps:
                    _save(path, done, task, accelerator, record)
                figures = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
                shown.set_description(f"{figures}, best {select} {record.best:.3g}", refresh=False)
                shown.update()
        model.load_state_dict(record.weights)
    return record.history


def _seed_of(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def write_history(history: History, path: str | Path) -> None:
    """Write `metrics.tsv`: the columns step, metric, value."""
    write_table(pd.DataFrame(history, columns=["step", "metric", "value"]), path)

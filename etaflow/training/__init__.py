"""One training loop for all tasks: exact to resume, on one device or several, loud when it fails.

The working state is `working_dir/fingerprint/checkpoint-{step}.pt`: step, weights, their average,
optimisers, the best weights so far and the history, written as a whole. Batch number i and the
random numbers of step i are pure functions of the seed and i, so that nothing else need be kept and
a resumed training ends with the bits of an uninterrupted one (on the CPU; GPU kernels are not that
strict).
"""

from etaflow.training.loop import train
from etaflow.training.record import History, kept_step, write_history
from etaflow.training.task import Task, TrainingError
from etaflow.training.trainer import Settings, Trainer

__all__ = [
    "History",
    "Settings",
    "Task",
    "Trainer",
    "TrainingError",
    "kept_step",
    "train",
    "write_history",
]

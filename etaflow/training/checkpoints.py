"""The working state of a training on disk."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from etaflow.atomic import atomic_file
from etaflow.training.task import TrainingError


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), key=_step_of, reverse=True)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write `checkpoint-{step}.pt` whole or not at all, then leave the `keep` newest up to it."""
    with atomic_file(folder / f"checkpoint-{step}.pt") as part:
        torch.save(state, part)
    for old in [path for path in checkpoints(folder) if _step_of(path) <= step][keep:]:
        old.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint, and what is wrong with each that is newer.

    Returns:
        The state, on the CPU, or None where there is no checkpoint; and a line a damaged file.

    Raises:
        TrainingError: there are checkpoints and none can be read.
    """
    damaged: list[str] = []
    for path in checkpoints(folder):
        try:
            # PyTorch writes checksums and does not look at them.
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"{bad} fails its checksum")
            return torch.load(path, map_location="cpu", weights_only=True), damaged
        # Whatever a damaged file makes of the reader: zip, unpickling and tensor errors.
        except Exception as error:
            reason = str(error).partition("\n")[0][:200]
            damaged.append(f"{path}: damaged ({type(error).__name__}: {reason})")
    if damaged:
        lines = "\n".join(damaged)
        raise TrainingError(f"{lines}\nno checkpoint is left: delete {folder} to start over")
    return None, []


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, which no other training may then work in."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock").acquire(blocking=False):
            yield
    except Timeout as error:
        raise TrainingError(
            f"{folder} is in use: the same training still runs in another process; end that first"
        ) from error

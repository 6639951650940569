"""Outputs that appear whole or not at all.

Everything is written beside its destination under a name that ends in `.part` and renamed once it
is complete. A killed program leaves at most the `.part`, which the next run writes over, or goes on
with.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def part_path(path: Path) -> Path:
    """Where the unfinished version of `path` lies; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.part")


def check_destination(path: Path) -> None:
    """Raise `OSError` where no file can be written as `path`: before long work, not after it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the file to write")
    place = path.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {place} is a file, not a folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write in {place}")


# Under this much room a failed write is put down to the disk; libraries seldom say so themselves.
_FULL_BYTES = 1 << 16


def _note_full_disk(error: BaseException, path: Path) -> None:
    """Say with an error, where it is so, that the disk was full when `path` was to be written."""
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        full = free < _FULL_BYTES or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full and isinstance(error, Exception) and not getattr(error, "__notes__", None):
            error.add_note(
                f"{path}: not written, its disk is full ({free:,} bytes are free); make room and "
                "run again"
            )


# What a new file may be, as the user's umask says; it can be read by setting it alone.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def _share(path: Path) -> None:
    """Let others read a file as they may any: safetensors writes files for their owner alone."""
    path.chmod(path.stat().st_mode | (0o666 & ~_UMASK))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_with_part(path: Path) -> None:
    """Make the finished `part_path(path)` durable and give it its name."""
    part = part_path(path)
    _share(part)
    _flush(part)
    os.replace(part, path)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` if the block ends well, else remove it."""
    path = Path(path)
    part = part_path(path)
    try:
        yield part
        replace_with_part(path)
    except BaseException as error:
        _note_full_disk(error, path)
        part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: str | Path, resume: bool = False) -> Iterator[Path]:
    """Yield an empty temporary directory; it takes the place of `path` if the block ends well.

    With `resume` it is not empty: it holds what earlier blocks left that did not end well.
    """
    path = Path(path)
    part = part_path(path)
    if not resume:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(exist_ok=True)
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _share(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    except BaseException as error:
        _note_full_disk(error, path)
        if not resume:
            shutil.rmtree(part, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with sorted keys. NaN and infinity raise `ValueError`."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")

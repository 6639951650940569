"""What the HDF5 files of the store have in common."""

import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

FORMAT = "etaflow-features/1"
Floats = npt.NDArray[np.floating[Any]]
AGAIN = "delete it and run again"


class StoreError(ValueError):
    """A file that is not what was asked for, or a write that would lose data."""


@dataclass(frozen=True)
class FeatureMeta:
    """What features are: equal for all shards that are read together."""

    model: str
    revision: str
    layer: int
    normalize: bool
    sample_rate: int
    hop_length: int


def read_meta(file: h5py.File) -> FeatureMeta:
    """What the features of an open shard are."""
    return FeatureMeta(
        str(file.attrs["model"]),
        str(file.attrs["revision"]),
        int(file.attrs["layer"]),
        bool(file.attrs["normalize"]),
        int(file.attrs["sample_rate"]),
        int(file.attrs["hop_length"]),
    )


def tables_checksum(file: h5py.File) -> int:
    """CRC-32 of everything in a shard but the frames, which have theirs an utterance."""
    value = zlib.crc32(repr(read_meta(file)).encode())
    for name in ("offset", "num_samples", "frame_sum", "frame_square_sum", "checksum"):
        value = zlib.crc32(np.ascontiguousarray(file[name][()]).data, value)
    for name in ("utterance_id", "speaker_id"):
        value = zlib.crc32("\n".join(read_strings(file[name])).encode(), value)
    return value


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise `StoreError` unless the disk of `folder` has `needed` bytes free for `what`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{folder}: {what} need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )


@contextmanager
def open_complete(path: Path, expected_format: str) -> Iterator[h5py.File]:
    """A complete file of a format; whatever HDF5 says of a damaged one becomes a `StoreError`."""
    try:
        with h5py.File(path, "r") as file:
            whole = file.attrs.get("format") == expected_format and file.attrs.get("complete")
            if not whole:
                raise StoreError(f"{path}: not a complete {expected_format} file; {AGAIN}")
            yield file
    except StoreError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise StoreError(f"{path}: not a readable HDF5 file ({error}); {AGAIN}") from error


def read_strings(dataset: h5py.Dataset) -> list[str]:
    """A dataset of UTF-8 strings."""
    return [str(value) for value in dataset.asstr()[()]]

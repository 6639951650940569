"""What the HDF5 files of the store have in common."""

import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
# What h5py raises on a damaged file; where a dataset should be, it may find a group.
UNREADABLE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
)


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


def checksum(values: npt.NDArray[Any], start: int = 0) -> int:
    """CRC-32 of an array's bytes, which goes on from `start`."""
    return zlib.crc32(np.ascontiguousarray(values).data, start)


def contents_checksum(
    file: h5py.File, header: str, arrays: Mapping[str, npt.DTypeLike], strings: Sequence[str]
) -> int:
    """CRC-32 of a header and of some datasets.

    The arrays are read as the type that they should have: a damaged file may claim another for
    unchanged bytes.
    """
    value = zlib.crc32(header.encode())
    for name, dtype in arrays.items():
        value = checksum(np.asarray(file[name][()], dtype), value)
    for name in strings:
        value = zlib.crc32("\n".join(read_strings(file[name])).encode(), value)
    return value


def tables_checksum(file: h5py.File) -> int:
    """CRC-32 of everything in a shard but the frames, which have theirs an utterance."""
    arrays = {
        "offset": np.int64,
        "num_samples": np.int64,
        "frame_sum": np.float64,
        "frame_square_sum": np.float64,
        "checksum": np.uint32,
    }
    return contents_checksum(file, repr(read_meta(file)), arrays, ("utterance_id", "speaker_id"))


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise `StoreError` unless the disk of `folder` has `needed` bytes free for `what`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{folder}: no room for {what}: {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        )


@contextmanager
def open_complete(path: Path, expected_format: str) -> Iterator[h5py.File]:
    """A complete file of a format; whatever HDF5 says of a damaged one becomes a `StoreError`."""
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file")
    try:
        with h5py.File(path, "r") as file:
            whole = file.attrs.get("format") == expected_format and file.attrs.get("complete")
            if not whole:
                raise StoreError(f"{path}: not a complete {expected_format} file; {AGAIN}")
            yield file
    except StoreError:
        raise
    except UNREADABLE as error:
        raise StoreError(f"{path}: not a readable HDF5 file ({error}); {AGAIN}") from error


def read_strings(dataset: h5py.Dataset) -> list[str]:
    """A dataset of UTF-8 strings."""
    return [str(value) for value in dataset.asstr()[()]]

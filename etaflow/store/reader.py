"""Reading features."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from etaflow.store.files import (
    AGAIN,
    FORMAT,
    UNREADABLE,
    FeatureMeta,
    Floats,
    StoreError,
    checksum,
    open_complete,
    read_meta,
    read_strings,
    tables_checksum,
)


class FeatureStore(Mapping[str, Floats]):
    """Many shards read as one mapping from utterance id to features (T, D).

    Files are opened on first use in each process, so a store can be handed to worker processes.
    """

    def __init__(
        self, paths: Sequence[str | Path], expect: Mapping[str, Any] | None = None
    ) -> None:
        """Read the small tables of all shards.

        Args:
            paths: the shards; may be empty of utterances, not all of them.
            expect: attributes (of `FeatureMeta`) that the shards must have.

        Raises:
            StoreError: a shard is incomplete, is not what `expect` asks for, or the shards differ.
        """
        self._paths = [Path(path) for path in paths]
        self._files: dict[int, h5py.File] = {}
        self._pid = os.getpid()
        self._where: dict[str, tuple[int, int, int]] = {}
        self._checksums: dict[str, int] = {}  # of utterances that were not read yet
        ids, speakers, counts, sums, squares, samples = [], [], [], [], [], []
        metas: set[FeatureMeta] = set()
        if not paths:
            raise StoreError("no shards to read")
        for number, path in enumerate(self._paths):
            with open_complete(path, FORMAT) as file:
                if file.attrs.get("tables_checksum") != tables_checksum(file):
                    raise StoreError(f"{path}: damaged (its tables fail their checksum); {AGAIN}")
                if file["frames"].dtype not in (np.float16, np.float32):
                    raise StoreError(f"{path}: damaged (frames of {file['frames'].dtype}); {AGAIN}")
                meta = read_meta(file)
                for name, value in (expect or {}).items():
                    if getattr(meta, name) != value:
                        raise StoreError(
                            f"{path}: {name} is {getattr(meta, name)!r}, asked for {value!r}"
                        )
                metas.add(meta)
                offset = file["offset"][()]
                names = read_strings(file["utterance_id"])
                for u, name in enumerate(names):
                    if name in self._where:
                        raise StoreError(f"{path}: utterance {name} is in another shard too")
                    self._where[name] = (number, int(offset[u]), int(offset[u + 1]))
                ids += names
                speakers += read_strings(file["speaker_id"])
                counts.append(np.diff(offset))
                self._checksums.update(zip(names, file["checksum"][()].tolist(), strict=True))
                samples.append(file["num_samples"][()])
                sums.append(file["frame_sum"][()])
                squares.append(file["frame_square_sum"][()])
                self.dim = int(file["frames"].shape[1])
        if len(metas) != 1:
            raise StoreError(f"shards of {len(metas)} kinds of features: {sorted(map(str, metas))}")
        self.meta = metas.pop()
        self.utterance_ids, self.speaker_ids = ids, speakers
        self.num_frames: npt.NDArray[np.int64] = np.concatenate(counts)
        self.num_samples: npt.NDArray[np.int64] = np.concatenate(samples)
        self.frame_sum: npt.NDArray[np.float64] = np.concatenate(sums)
        self.frame_square_sum: npt.NDArray[np.float64] = np.concatenate(squares)

    def __getitem__(self, utterance_id: str) -> Floats:
        return self.read(utterance_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.utterance_ids)

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def read(self, utterance_id: str, start: int = 0, stop: int | None = None) -> Floats:
        """Frames `start` to `stop` of an utterance as float32 (T, D).

        The first read of an utterance compares all of it with its checksum. A `stop` beyond the
        end gives what there is.

        Raises:
            StoreError: there is no such utterance, or the file was damaged since it was written.
            ValueError: not 0 <= start <= stop.
        """
        if utterance_id not in self._where:
            raise StoreError(f"utterance {utterance_id} is in none of {len(self._paths)} shard(s)")
        number, first, last = self._where[utterance_id]
        if not 0 <= start <= (last - first if stop is None else stop):
            raise ValueError(f"{utterance_id}: frames {start} to {stop} of {last - first}")
        end = last if stop is None else min(first + stop, last)
        if self._pid != os.getpid():  # an HDF5 handle must not cross a fork
            self._files, self._pid = {}, os.getpid()
        try:
            if number not in self._files:
                self._files[number] = h5py.File(self._paths[number], "r")
            frames = self._files[number]["frames"]
            expected = self._checksums.get(utterance_id)
            if expected is not None and checksum(frames[first:last]) != expected:
                raise OSError(f"the frames of {utterance_id} fail their checksum")
            self._checksums.pop(utterance_id, None)
            return np.asarray(frames[first + start : end], dtype=np.float32)
        except UNREADABLE as error:
            raise StoreError(f"{self._paths[number]}: damaged ({error}); {AGAIN}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

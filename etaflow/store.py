"""Features and embeddings in HDF5.

Features of a shard (format `etaflow-features/1`) are one contiguous array `frames` (N, D), with
`offset` (U+1,) to find utterance u at `frames[offset[u]:offset[u+1]]`, and, an utterance, the sum
and the sum of squares of its frames in float64, taken before rounding.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from etaflow.atomic import atomic_file

FORMAT = "etaflow-features/1"
EMBEDDINGS_FORMAT = "etaflow-embeddings/1"
Floats = npt.NDArray[np.floating[Any]]


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


class FeatureWriter:
    """Writes one shard. Sizes are known beforehand, so utterances may come in any order.

    Used as a context manager: the file appears under its name when the block ends well and every
    utterance was written, and not at all otherwise.
    """

    def __init__(
        self,
        path: str | Path,
        meta: FeatureMeta,
        utterance_ids: Sequence[str],
        speaker_ids: Sequence[str],
        num_samples: Sequence[int],
        num_frames: Sequence[int],
        dim: int,
        dtype: str = "float16",
    ) -> None:
        self._meta = meta
        self._ids = list(utterance_ids)
        self._index = {name: i for i, name in enumerate(self._ids)}
        if len(self._index) != len(self._ids):
            raise StoreError(f"{path}: an utterance id stands twice")
        self._speakers, self._samples = list(speaker_ids), np.asarray(num_samples, np.int64)
        self._offset = np.concatenate([[0], np.cumsum(np.asarray(num_frames, np.int64))])
        self._dim, self._dtype = dim, np.dtype(dtype)
        self._sum = np.zeros((len(self._ids), dim))
        self._square = np.zeros((len(self._ids), dim))
        self._written = np.zeros(len(self._ids), bool)
        self._atomic = atomic_file(path)

    def __enter__(self) -> "FeatureWriter":
        self._file = h5py.File(self._atomic.__enter__(), "w")
        self._frames = self._file.create_dataset(
            "frames", (int(self._offset[-1]), self._dim), self._dtype
        )
        return self

    def write(self, utterance_id: str, features: Floats) -> None:
        """Store the float32 features (T, D) of one utterance.

        Raises:
            StoreError: T or D is not as announced, or a value is NaN, infinite or beyond the
                range of the stored type.
        """
        u = self._index[utterance_id]
        start, stop = int(self._offset[u]), int(self._offset[u + 1])
        if features.shape != (stop - start, self._dim):
            raise StoreError(
                f"{utterance_id}: features {features.shape}, announced {(stop - start, self._dim)}"
            )
        if (
            not np.isfinite(features).all()
            or np.abs(features).max(initial=0) > np.finfo(self._dtype).max
        ):
            raise StoreError(
                f"{utterance_id}: NaN, infinite or beyond {self._dtype}; nothing is written. "
                "Check the model's weights, or store float32 (`dtype` in the config)."
            )
        self._frames[start:stop] = features.astype(self._dtype)
        exact = features.astype(np.float64)
        self._sum[u], self._square[u] = exact.sum(axis=0), (exact * exact).sum(axis=0)
        self._written[u] = True

    def _finish(self) -> None:
        if not self._written.all():
            missing = [self._ids[u] for u in np.flatnonzero(~self._written)]
            raise StoreError(f"{len(missing)} utterance(s) not written, the first is {missing[0]}")
        text = h5py.string_dtype("utf-8")
        self._file.create_dataset("utterance_id", data=self._ids, dtype=text)
        self._file.create_dataset("speaker_id", data=self._speakers, dtype=text)
        self._file["offset"], self._file["num_samples"] = self._offset, self._samples
        self._file["frame_sum"], self._file["frame_square_sum"] = self._sum, self._square
        for name, value in vars(self._meta).items():
            self._file.attrs[name] = value
        self._file.attrs["format"] = FORMAT
        self._file.attrs["complete"] = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as late:
            self._file.close()
            self._atomic.__exit__(type(late), late, late.__traceback__)
            raise
        self._file.close()
        self._atomic.__exit__(kind, error, trace)


def _open(path: Path, expected_format: str) -> h5py.File:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file ({error})") from error
    if file.attrs.get("format") != expected_format or not file.attrs.get("complete", False):
        file.close()
        raise StoreError(f"{path}: not a complete {expected_format} file; delete it and run again")
    return file


def _strings(dataset: h5py.Dataset) -> list[str]:
    return [str(value) for value in dataset.asstr()[()]]


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
        ids, speakers, counts, sums, squares, samples = [], [], [], [], [], []
        metas: set[FeatureMeta] = set()
        for number, path in enumerate(self._paths):
            with _open(path, FORMAT) as file:
                meta = FeatureMeta(
                    str(file.attrs["model"]),
                    str(file.attrs["revision"]),
                    int(file.attrs["layer"]),
                    bool(file.attrs["normalize"]),
                    int(file.attrs["sample_rate"]),
                    int(file.attrs["hop_length"]),
                )
                for name, value in (expect or {}).items():
                    if getattr(meta, name) != value:
                        raise StoreError(
                            f"{path}: {name} is {getattr(meta, name)!r}, asked for {value!r}"
                        )
                metas.add(meta)
                offset = file["offset"][()]
                names = _strings(file["utterance_id"])
                for u, name in enumerate(names):
                    if name in self._where:
                        raise StoreError(f"{path}: utterance {name} is in another shard too")
                    self._where[name] = (number, int(offset[u]), int(offset[u + 1]))
                ids += names
                speakers += _strings(file["speaker_id"])
                counts.append(np.diff(offset))
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
        """Frames `start` to `stop` of an utterance as float32 (T, D)."""
        number, first, last = self._where[utterance_id]
        if self._pid != os.getpid():  # an HDF5 handle must not cross a fork
            self._files, self._pid = {}, os.getpid()
        if number not in self._files:
            self._files[number] = _open(self._paths[number], FORMAT)
        end = last if stop is None else min(first + stop, last)
        return np.asarray(self._files[number]["frames"][first + start : end], dtype=np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def unit_rows(vectors: Floats) -> Floats:
    """Each row scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True)
class Embeddings:
    """Speaker embeddings (U, V), an utterance a row, and their means (S, V), a speaker a row."""

    utterance_ids: list[str]
    speaker_ids: list[str]
    vectors: Floats
    encoder: str
    weights: str

    def speaker_means(self) -> dict[str, Floats]:
        """Mean of the unit vectors of each speaker, scaled to length 1 again, in order of id."""
        unit = unit_rows(self.vectors)
        owner = np.asarray(self.speaker_ids)
        return {
            speaker: unit_rows(unit[owner == speaker].mean(axis=0, keepdims=True))[0]
            for speaker in sorted(set(self.speaker_ids))
        }

    def rows(self, utterance_ids: Sequence[str]) -> Floats:
        """The vectors of these utterances, in this order; a missing one raises `StoreError`."""
        index = {name: i for i, name in enumerate(self.utterance_ids)}
        missing = [name for name in utterance_ids if name not in index]
        if missing:
            raise StoreError(f"{len(missing)} utterance(s) not embedded, the first is {missing[0]}")
        return self.vectors[[index[name] for name in utterance_ids]]

    def write(self, path: str | Path) -> None:
        """Write HDF5 whole or not at all; NaN or infinite values raise `StoreError`."""
        if not np.isfinite(self.vectors).all():
            raise StoreError(f"{path}: NaN or infinite embedding")
        means = self.speaker_means()
        text = h5py.string_dtype("utf-8")
        with atomic_file(path) as part, h5py.File(part, "w") as file:
            file["embedding"] = self.vectors.astype(np.float32)
            file.create_dataset("utterance_id", data=self.utterance_ids, dtype=text)
            file.create_dataset("speaker_id", data=self.speaker_ids, dtype=text)
            file["speaker_mean/embedding"] = np.stack(list(means.values())).astype(np.float32)
            file.create_dataset("speaker_mean/speaker_id", data=list(means), dtype=text)
            file.attrs.update(
                format=EMBEDDINGS_FORMAT, encoder=self.encoder, weights=self.weights, complete=True
            )

    @classmethod
    def read(cls, path: str | Path) -> "Embeddings":
        """Read what `write` wrote."""
        with _open(Path(path), EMBEDDINGS_FORMAT) as file:
            return cls(
                _strings(file["utterance_id"]),
                _strings(file["speaker_id"]),
                file["embedding"][()],
                str(file.attrs["encoder"]),
                str(file.attrs["weights"]),
            )

"""Writing features."""

import hashlib
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from etaflow.atomic import part_path, replace_with_part
from etaflow.store.files import FORMAT, FeatureMeta, Floats, StoreError, tables_checksum

_WRITTEN_IN_PLACE = ("frames", "frame_sum", "frame_square_sum", "checksum", "written")


class FeatureWriter:
    """Writes one shard. Sizes are known beforehand, so utterances may come in any order.

    Used as a context manager: the file appears under its name when the block ends well and every
    utterance was written. Until then it lies beside it as `.NAME.part`, which stays when the block
    fails or the process is killed; a writer of the same `fingerprint` then goes on from there.

    The HDF5 structure is written and closed before the first frame; frames, sums and flags then go
    straight to their places in the file, so that a kill in the middle cannot damage it.
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
        fingerprint: str = "",
    ) -> None:
        """Announce what will be written.

        Args:
            path: of the shard.
            meta: what the features are.
            utterance_ids: all utterances of the shard, each once.
            speaker_ids: of each utterance.
            num_samples: of each utterance, at the meta's sampling rate.
            num_frames: of each utterance.
            dim: D.
            dtype: of the stored frames, `float16` or `float32`.
            fingerprint: of all that the frames depend on, besides what stands above.

        Raises:
            StoreError: an utterance stands twice, or the disk has too little room.
        """
        self._path = Path(path)
        self._part = part_path(self._path)
        self._meta, self._ids, self._speakers = meta, list(utterance_ids), list(speaker_ids)
        self._index = {name: i for i, name in enumerate(self._ids)}
        if len(self._index) != len(self._ids):
            raise StoreError(f"{path}: an utterance id stands twice")
        self._samples = np.asarray(num_samples, np.int64)
        self._offset = np.concatenate([[0], np.cumsum(np.asarray(num_frames, np.int64))])
        self._dim, self._dtype = dim, np.dtype(dtype)
        announced = repr((meta, self._ids, self._offset.tolist(), dim, dtype, fingerprint))
        self._fingerprint = hashlib.blake2b(announced.encode(), digest_size=8).hexdigest()

    def __enter__(self) -> "FeatureWriter":
        if not self._is_ours():
            self._create()
        with h5py.File(self._part, "r") as file:
            places = {name: self._place(file[name]) for name in _WRITTEN_IN_PLACE}
        self._arrays = places
        return self

    def _is_ours(self) -> bool:
        try:
            with h5py.File(self._part, "r") as file:
                return bool(file.attrs.get("fingerprint") == self._fingerprint)
        except OSError:
            return False  # there is none, or it was killed while it was being created

    def _create(self) -> None:
        frames, utterances = int(self._offset[-1]), len(self._ids)
        in_place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        in_place.set_layout(h5py.h5d.CONTIGUOUS)
        in_place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        in_place.set_obj_track_times(False)  # the same features make the same file
        shapes: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {
            "frames": ((frames, self._dim), self._dtype),
            "frame_sum": ((utterances, self._dim), np.float64),
            "frame_square_sum": ((utterances, self._dim), np.float64),
            "checksum": ((utterances,), np.uint32),
            "written": ((utterances,), np.uint8),
        }
        text = h5py.string_dtype("utf-8")
        with h5py.File(self._part, "w") as file:
            for name, (shape, dtype) in shapes.items():
                h5py.h5d.create(
                    file.id,
                    name.encode(),
                    h5py.h5t.py_create(np.dtype(dtype), logical=True),
                    h5py.h5s.create_simple(shape),
                    in_place,
                )
            file.create_dataset("utterance_id", data=self._ids, dtype=text)
            file.create_dataset("speaker_id", data=self._speakers, dtype=text)
            file["offset"], file["num_samples"] = self._offset, self._samples
            file.attrs.update(vars(self._meta))
            file.attrs.update(format=FORMAT, complete=False, fingerprint="")
        try:
            # Room is taken now: a full disk under a mapped file would kill the process later.
            with self._part.open("r+b") as stream:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(stream.fileno(), 0, self._part.stat().st_size)
        except OSError as error:
            size = self._part.stat().st_size
            self._part.unlink()
            free = shutil.disk_usage(self._part.parent).free
            raise StoreError(
                f"{self._path}: no room for {size / 1e9:.3f} GB, {free / 1e9:.3f} GB are free "
                f"({error.strerror}); nothing was written"
            ) from error
        with h5py.File(self._part, "r+") as file:
            file.attrs["fingerprint"] = self._fingerprint

    def _place(self, dataset: h5py.Dataset) -> npt.NDArray[Any]:
        if dataset.size == 0:
            return np.empty(dataset.shape, dataset.dtype)
        return np.memmap(
            self._part, dataset.dtype, "r+", dataset.id.get_offset(), dataset.shape, order="C"
        )

    @property
    def remaining(self) -> list[str]:
        """The utterances that are still to be written, in the order they were announced."""
        return [self._ids[u] for u in np.flatnonzero(self._arrays["written"] == 0)]

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
        stored, exact = features.astype(self._dtype), features.astype(np.float64)
        self._arrays["frames"][start:stop] = stored
        self._arrays["frame_sum"][u] = exact.sum(axis=0)
        self._arrays["frame_square_sum"][u] = (exact * exact).sum(axis=0)
        self._arrays["checksum"][u] = zlib.crc32(np.ascontiguousarray(stored).data)
        self._arrays["written"][u] = 1

    def _finish(self) -> None:
        if missing := self.remaining:
            raise StoreError(f"{len(missing)} utterance(s) not written, the first is {missing[0]}")
        self._release()
        with h5py.File(self._part, "r+") as file:
            del file["written"]
            file.attrs["tables_checksum"] = tables_checksum(file)
            file.attrs["complete"] = True
        replace_with_part(self._path)

    def _release(self) -> None:
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        self._arrays = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        else:
            self._release()

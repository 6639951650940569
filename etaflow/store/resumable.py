"""HDF5 files that are filled in place, and filled further after a kill."""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from etaflow.atomic import part_path, replace_with_part
from etaflow.store.files import UNREADABLE, StoreError, checksum, require_room

# For all but the arrays. HDF5 can crash when the disk fills while it writes, so we ask first.
COMPLETION_BYTES = 16_000_000


class ResumableWriter:
    """Writes one file about some utterances, which may come in any order.

    Used as a context manager: the file appears under its name when the block ends well and every
    utterance was written. Until then it lies beside it as `.NAME.part`, which stays when the block
    fails or the process is killed; a writer that announces the same then goes on from there.

    The HDF5 structure is written and closed before the first utterance; arrays, checksums and
    flags then go straight to their places in the file, so that a kill in the middle cannot damage
    it. Beside what a subclass names, the file has `utterance_id` and `speaker_id` (U,), and
    `checksum` (U,), the CRC-32 of each utterance's stored bytes.
    """

    def __init__(
        self,
        path: str | Path,
        utterance_ids: Sequence[str],
        speaker_ids: Sequence[str],
        arrays: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]],
        tables: Mapping[str, npt.NDArray[Any]],
        attributes: Mapping[str, Any],
        announced: object,
    ) -> None:
        """Announce what will be written.

        Args:
            path: of the file.
            utterance_ids: all utterances of the file, each once.
            speaker_ids: of each utterance.
            arrays: shape and type of what is filled in utterance by utterance.
            tables: what is known before.
            attributes: of the file, `format` among them.
            announced: all that the file depends on; its `repr` decides whether to go on.

        Raises:
            StoreError: an utterance stands twice.
        """
        self._path = Path(path)
        self._part = part_path(self._path)
        self._lock = self._path.with_name(f".{self._path.name}.lock")
        self._ids, self._speakers = list(utterance_ids), list(speaker_ids)
        self._index = {name: i for i, name in enumerate(self._ids)}
        if len(self._index) != len(self._ids):
            raise StoreError(f"{path}: an utterance id stands twice")
        self._shapes = {
            **arrays,
            "checksum": ((len(self._ids),), np.uint32),
            "written": ((len(self._ids),), np.uint8),
        }
        self._tables, self._attributes = tables, attributes
        digest = hashlib.blake2b(repr(announced).encode(), digest_size=8)
        self._fingerprint = digest.hexdigest()

    def __enter__(self) -> Self:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        self._held = FileLock(self._lock, blocking=False)
        try:
            self._held.acquire()
        except Timeout as error:
            raise StoreError(
                f"{self._path}: another job is writing this file; end that first"
            ) from error
        try:
            if not self._is_ours():
                self._create()
            with h5py.File(self._part, "r") as file:
                # Killed before it got its name: nothing else is left to do.
                self._finished = bool(file.attrs["complete"])
                self._arrays = (
                    {}
                    if self._finished
                    else {name: self._place(file[name]) for name in self._shapes}
                )
        except BaseException:
            self._let_go()
            raise
        return self

    def _let_go(self) -> None:
        self._lock.unlink(missing_ok=True)
        self._held.release()

    def _is_ours(self) -> bool:
        try:
            with h5py.File(self._part, "r") as file:
                whole = "written" in file or bool(file.attrs["complete"])
                return whole and bool(file.attrs.get("fingerprint") == self._fingerprint)
        except UNREADABLE:
            return False  # there is none, or it was killed while it was created or completed

    def _create(self) -> None:
        in_place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        in_place.set_layout(h5py.h5d.CONTIGUOUS)
        in_place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        in_place.set_obj_track_times(False)  # the same content makes the same file
        size = sum(
            int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in self._shapes.values()
        )
        require_room(self._part.parent, int(size) + COMPLETION_BYTES, str(self._path))
        try:
            self._create_structure(in_place)
            # Room is taken now: a full disk under a mapped file would kill the process later.
            with self._part.open("r+b") as stream:
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(stream.fileno(), 0, self._part.stat().st_size)
            with h5py.File(self._part, "r+") as file:
                file.attrs["fingerprint"] = self._fingerprint
        except (OSError, RuntimeError) as error:  # h5py has both for a full disk
            self._part.unlink(missing_ok=True)
            free = shutil.disk_usage(self._part.parent).free
            raise StoreError(
                f"{self._path}: cannot be begun ({error}; {free / 1e6:.3f} MB are free); nothing "
                "was written"
            ) from error

    def _create_structure(self, in_place: h5py.h5p.PropDCID) -> None:
        text = h5py.string_dtype("utf-8")
        with h5py.File(self._part, "w") as file:
            for name, (shape, dtype) in self._shapes.items():
                h5py.h5d.create(
                    file.id,
                    name.encode(),
                    h5py.h5t.py_create(np.dtype(dtype), logical=True),
                    h5py.h5s.create_simple(shape),
                    in_place,
                )
            file.create_dataset("utterance_id", data=self._ids, dtype=text)
            file.create_dataset("speaker_id", data=self._speakers, dtype=text)
            for name, table in self._tables.items():
                file[name] = table
            file.attrs.update(self._attributes)
            file.attrs.update(complete=False, fingerprint="")

    def _place(self, dataset: h5py.Dataset) -> npt.NDArray[Any]:
        if dataset.size == 0:
            return np.empty(dataset.shape, dataset.dtype)
        return np.memmap(
            self._part, dataset.dtype, "r+", dataset.id.get_offset(), dataset.shape, order="C"
        )

    @property
    def remaining(self) -> list[str]:
        """The utterances that are still to be written, in the order they were announced."""
        if self._finished:
            return []
        return [self._ids[u] for u in np.flatnonzero(self._arrays["written"] == 0)]

    def _set_written(self, u: int, stored: npt.NDArray[Any]) -> None:
        """Called once all arrays hold utterance `u`, of which `stored` are the bytes to check."""
        self._arrays["checksum"][u] = checksum(stored)
        self._arrays["written"][u] = 1

    def _complete(self, file: h5py.File) -> None:
        """Add what follows from the whole file."""
        raise NotImplementedError

    def _finish(self) -> None:
        if missing := self.remaining:
            raise StoreError(f"{len(missing)} utterance(s) not written, the first is {missing[0]}")
        self._release()
        if not self._finished:
            require_room(self._part.parent, COMPLETION_BYTES, f"what completes {self._path.name}")
            with h5py.File(self._part, "r+") as file:
                del file["written"]
                self._complete(file)
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
        try:
            if error is None:
                self._finish()
            else:
                self._release()
        finally:
            self._let_go()

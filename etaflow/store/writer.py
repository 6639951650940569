"""Writing features."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from etaflow.store.files import FORMAT, FeatureMeta, Floats, StoreError, tables_checksum
from etaflow.store.resumable import ResumableWriter


class FeatureWriter(ResumableWriter):
    """Writes one shard of features. Sizes are known beforehand; see `ResumableWriter`."""

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
            StoreError: an utterance stands twice, or, on entering, the disk has too little room.
        """
        self._offset = np.concatenate([[0], np.cumsum(np.asarray(num_frames, np.int64))])
        self._dim, self._dtype = dim, np.dtype(dtype)
        ids = list(utterance_ids)
        super().__init__(
            path,
            ids,
            speaker_ids,
            arrays={
                "frames": ((int(self._offset[-1]), dim), self._dtype),
                "frame_sum": ((len(ids), dim), np.float64),
                "frame_square_sum": ((len(ids), dim), np.float64),
            },
            tables={"offset": self._offset, "num_samples": np.asarray(num_samples, np.int64)},
            attributes={**vars(meta), "format": FORMAT},
            announced=(meta, ids, self._offset.tolist(), dim, dtype, fingerprint),
        )

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
                "Check the model's weights, or set `dtype` and `precision` to float32."
            )
        stored, exact = features.astype(self._dtype), features.astype(np.float64)
        self._arrays["frames"][start:stop] = stored
        self._arrays["frame_sum"][u] = exact.sum(axis=0)
        self._arrays["frame_square_sum"][u] = (exact * exact).sum(axis=0)
        self._set_written(u, stored)

    def _complete(self, file: h5py.File) -> None:
        file.attrs["tables_checksum"] = tables_checksum(file)

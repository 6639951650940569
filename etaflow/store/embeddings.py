"""Speaker embeddings in HDF5."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from etaflow.atomic import atomic_file
from etaflow.store.files import Floats, StoreError, open_complete, read_strings

EMBEDDINGS_FORMAT = "etaflow-embeddings/1"


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
        with open_complete(Path(path), EMBEDDINGS_FORMAT) as file:
            return cls(
                read_strings(file["utterance_id"]),
                read_strings(file["speaker_id"]),
                file["embedding"][()],
                str(file.attrs["encoder"]),
                str(file.attrs["weights"]),
            )

"""Speaker embeddings in HDF5."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from etaflow.atomic import atomic_file
from etaflow.store.files import (
    AGAIN,
    Floats,
    StoreError,
    checksum,
    contents_checksum,
    open_complete,
    read_strings,
)
from etaflow.store.resumable import ResumableWriter

EMBEDDINGS_FORMAT = "etaflow-embeddings/1"


def unit_rows(vectors: Floats) -> Floats:
    """Each row scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _tables_checksum(file: h5py.File) -> int:
    """CRC-32 of everything in a file but the embeddings, which have theirs an utterance."""
    return contents_checksum(
        file,
        repr((str(file.attrs["encoder"]), str(file.attrs["weights"]))),
        {"checksum": np.uint32, "speaker_mean/embedding": np.float32},
        ("utterance_id", "speaker_id", "speaker_mean/speaker_id"),
    )


def _complete(file: h5py.File) -> None:
    """Add the speakers' means and the checksum of the tables to what a file has already."""
    text = h5py.string_dtype("utf-8")
    with np.errstate(invalid="ignore"):  # said in words below
        means = _contents(file).speaker_means()
    unclear = [name for name, mean in means.items() if not np.isfinite(mean).all()]
    if unclear:
        raise StoreError(f"speaker {unclear[0]}: its embeddings are zero or cancel each other out")
    vectors = np.array(list(means.values()), np.float32).reshape(-1, file["embedding"].shape[1])
    file["speaker_mean/embedding"] = vectors
    file.create_dataset("speaker_mean/speaker_id", data=list(means), dtype=text)
    file.attrs["tables_checksum"] = _tables_checksum(file)


def _contents(file: h5py.File) -> "Embeddings":
    return Embeddings(
        read_strings(file["utterance_id"]),
        read_strings(file["speaker_id"]),
        np.asarray(file["embedding"][()], np.float32),
        str(file.attrs["encoder"]),
        str(file.attrs["weights"]),
    )


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
        speakers, owner = np.unique(np.asarray(self.speaker_ids, str), return_inverse=True)
        sums = np.zeros((len(speakers), self.vectors.shape[1]))
        np.add.at(sums, owner, unit_rows(self.vectors))
        return dict(zip(speakers.tolist(), unit_rows(sums), strict=True))

    def rows(self, utterance_ids: Sequence[str]) -> Floats:
        """The vectors of these utterances, in this order; a missing one raises `StoreError`."""
        index = {name: i for i, name in enumerate(self.utterance_ids)}
        missing = [name for name in utterance_ids if name not in index]
        if missing:
            raise StoreError(f"{len(missing)} utterance(s) not embedded, the first is {missing[0]}")
        return self.vectors[[index[name] for name in utterance_ids]]

    def write(self, path: str | Path) -> None:
        """Write HDF5 whole or not at all.

        Raises:
            StoreError: a value is NaN or infinite, an utterance stands twice, or the embeddings
                of a speaker have no mean direction.
        """
        if len(set(self.utterance_ids)) != len(self.utterance_ids):
            raise StoreError(f"{path}: an utterance id stands twice")
        if not np.isfinite(self.vectors).all():
            raise StoreError(f"{path}: NaN or infinite embedding")
        text = h5py.string_dtype("utf-8")
        vectors = self.vectors.astype(np.float32)
        with atomic_file(path) as part, h5py.File(part, "w") as file:
            file["embedding"] = vectors
            file["checksum"] = np.array([checksum(row) for row in vectors], np.uint32)
            file.create_dataset("utterance_id", data=self.utterance_ids, dtype=text)
            file.create_dataset("speaker_id", data=self.speaker_ids, dtype=text)
            file.attrs.update(format=EMBEDDINGS_FORMAT, encoder=self.encoder, weights=self.weights)
            _complete(file)
            file.attrs["complete"] = True

    @classmethod
    def read(cls, path: str | Path) -> "Embeddings":
        """Read what `write` or an `EmbeddingWriter` wrote.

        Raises:
            StoreError: the file is incomplete, or was damaged since it was written.
        """
        with open_complete(Path(path), EMBEDDINGS_FORMAT) as file:
            if file.attrs.get("tables_checksum") != _tables_checksum(file):
                raise StoreError(f"{path}: damaged (its tables fail their checksum); {AGAIN}")
            embeddings = _contents(file)
            expected = file["checksum"][()].tolist()
            rows = zip(embeddings.utterance_ids, embeddings.vectors, expected, strict=True)
            for name, row, value in rows:
                if checksum(row) != value:
                    raise StoreError(
                        f"{path}: damaged (the embedding of {name} fails its checksum); {AGAIN}"
                    )
            return embeddings

    @classmethod
    def read_shards(cls, paths: Sequence[str | Path]) -> "Embeddings":
        """Read many files as one, in order of utterance id.

        Args:
            paths: the shards; may be empty of utterances.

        Raises:
            StoreError: a shard cannot be read, an utterance is in two, or the shards are of
                different encoders.
        """
        shards = [cls.read(path) for path in paths]
        kinds = {(shard.encoder, shard.weights, shard.vectors.shape[1]) for shard in shards}
        if len(kinds) != 1:
            raise StoreError(f"shards of {len(kinds)} kinds of embeddings: {sorted(kinds)}")
        encoder, weights, _ = kinds.pop()
        ids = [name for shard in shards for name in shard.utterance_ids]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        for one, other in pairwise(order):
            if ids[one] == ids[other]:
                raise StoreError(f"utterance {ids[one]} is in two shards")
        speakers = [name for shard in shards for name in shard.speaker_ids]
        return cls(
            [ids[u] for u in order],
            [speakers[u] for u in order],
            np.concatenate([shard.vectors for shard in shards])[order],
            encoder,
            weights,
        )


class EmbeddingWriter(ResumableWriter):
    """Writes `Embeddings` an utterance at a time; see `ResumableWriter`."""

    def __init__(
        self,
        path: str | Path,
        utterance_ids: Sequence[str],
        speaker_ids: Sequence[str],
        dim: int,
        encoder: str,
        weights: str,
        fingerprint: str = "",
    ) -> None:
        """Announce what will be written.

        Args:
            path: of the file.
            utterance_ids: all utterances of the file, each once.
            speaker_ids: of each utterance.
            dim: V.
            encoder: its name.
            weights: `trained`, `published` or `untrained`.
            fingerprint: of all that the embeddings depend on, besides what stands above.

        Raises:
            StoreError: an utterance stands twice, or, on entering, the disk has too little room.
        """
        self._dim = dim
        ids, speakers = list(utterance_ids), list(speaker_ids)
        super().__init__(
            path,
            ids,
            speakers,
            arrays={"embedding": ((len(ids), dim), np.float32)},
            tables={},
            attributes={"format": EMBEDDINGS_FORMAT, "encoder": encoder, "weights": weights},
            announced=(ids, speakers, dim, encoder, weights, fingerprint),
        )

    def write(self, utterance_id: str, vector: Floats) -> None:
        """Store the embedding (V,) of one utterance.

        Raises:
            StoreError: V is not as announced, or a value is NaN or infinite.
        """
        if vector.shape != (self._dim,):
            raise StoreError(f"{utterance_id}: embedding {vector.shape}, announced {(self._dim,)}")
        stored = vector.astype(np.float32)
        if not np.isfinite(stored).all():
            raise StoreError(f"{utterance_id}: NaN or infinite embedding; nothing is written")
        u = self._index[utterance_id]
        self._arrays["embedding"][u] = stored
        self._set_written(u, stored)

    def _complete(self, file: h5py.File) -> None:
        _complete(file)

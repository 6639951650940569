"""Features and embeddings in HDF5.

Features of a shard (format `etaflow-features/1`) are one contiguous array `frames` (N, D), with
`offset` (U+1,) to find utterance u at `frames[offset[u]:offset[u+1]]`, and, an utterance, the sum
and the sum of squares of its frames in float64, taken before rounding, and the CRC-32 of its
stored bytes.

Speaker embeddings (format `etaflow-embeddings/1`) are `embedding` (U, V) float32, with each row's
CRC-32, and the speakers' means; a shard of them and a whole corpus are the same kind of file.

Both are written by a writer that goes on after a kill.
"""

from etaflow.store.embeddings import Embeddings, EmbeddingWriter, unit_rows
from etaflow.store.files import FeatureMeta, Floats, StoreError, require_room
from etaflow.store.reader import FeatureStore
from etaflow.store.writer import FeatureWriter

__all__ = [
    "EmbeddingWriter",
    "Embeddings",
    "FeatureMeta",
    "FeatureStore",
    "FeatureWriter",
    "Floats",
    "StoreError",
    "require_room",
    "unit_rows",
]

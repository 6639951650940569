"""Features and embeddings in HDF5.

Features of a shard (format `etaflow-features/1`) are one contiguous array `frames` (N, D), with
`offset` (U+1,) to find utterance u at `frames[offset[u]:offset[u+1]]`, and, an utterance, the sum
and the sum of squares of its frames in float64, taken before rounding, and the CRC-32 of its
stored bytes.
"""

from etaflow.store.embeddings import Embeddings, unit_rows
from etaflow.store.files import FeatureMeta, Floats, StoreError, require_room
from etaflow.store.reader import FeatureStore
from etaflow.store.writer import FeatureWriter

__all__ = [
    "Embeddings",
    "FeatureMeta",
    "FeatureStore",
    "FeatureWriter",
    "Floats",
    "StoreError",
    "require_room",
    "unit_rows",
]

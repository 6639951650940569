"""Corpora: one module a kind, and one way from each to a manifest."""

from etaflow.corpora.base import CorpusError, Listing, Recording, Rejected
from etaflow.corpora.build import (
    build_manifest,
    examine,
    fetch,
    inventory,
    recordings,
    rejection_summary,
)

__all__ = [
    "CorpusError",
    "Listing",
    "Recording",
    "Rejected",
    "build_manifest",
    "examine",
    "fetch",
    "inventory",
    "recordings",
    "rejection_summary",
]

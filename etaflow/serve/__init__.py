"""The server of a bundle, its web page, and its client."""

from importlib import import_module
from typing import Any

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Load `Client` on first use: it needs nothing of what the server needs, and the reverse."""
    if name == "Client":
        return import_module("etaflow.serve.client").Client
    raise AttributeError(f"module 'etaflow.serve' has no attribute {name!r}")

"""Speaker identity in self-supervised speech features."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["VoiceConverter", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `VoiceConverter` on first use, so that `import etaflow` stays light."""
    if name == "VoiceConverter":
        return import_module("etaflow.converter").VoiceConverter
    raise AttributeError(f"module 'etaflow' has no attribute {name!r}")

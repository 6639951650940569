"""Self-supervised encoders (WavLM, HuBERT), cut at the deepest layer asked for."""

from etaflow.ssl.encoder import SSLEncoder
from etaflow.ssl.features import SSLFeatures

__all__ = ["SSLEncoder", "SSLFeatures"]

"""Self-supervised encoders (WavLM, HuBERT), cut at the deepest layer asked for."""

from etaflow.ssl.encoder import SSLEncoder

__all__ = ["SSLEncoder"]

"""Vocoders: features (T, D) at 50 frames a second to a waveform (hop_length T,)."""

from etaflow.vocoder.config import (
    GeneratorConfig,
    HarmonicConfig,
    IstftConfig,
    VocoderError,
    read_config,
)
from etaflow.vocoder.generator import Generator
from etaflow.vocoder.mel import log_mel

__all__ = [
    "Generator",
    "GeneratorConfig",
    "HarmonicConfig",
    "IstftConfig",
    "VocoderError",
    "log_mel",
    "read_config",
]

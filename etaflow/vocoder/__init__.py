"""HiFi-GAN vocoder: features (T, D) at 50 frames a second to a waveform (hop_length T,)."""

from etaflow.vocoder.config import GeneratorConfig, VocoderError
from etaflow.vocoder.generator import Generator
from etaflow.vocoder.mel import log_mel

__all__ = ["Generator", "GeneratorConfig", "VocoderError", "log_mel"]

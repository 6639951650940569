"""HiFi-GAN vocoder: features (T, D) at 50 frames a second to a 16 kHz waveform (320 T,)."""

from etaflow.vocoder.generator import Generator, GeneratorConfig, VocoderError
from etaflow.vocoder.mel import log_mel

__all__ = ["Generator", "GeneratorConfig", "VocoderError", "log_mel"]

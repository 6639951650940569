"""What the features of an encoder are, for those who have them and need no encoder."""

from dataclasses import dataclass

from etaflow.models import ModelInfo
from etaflow.ssl.frames import FrameGrid


@dataclass(frozen=True)
class SSLFeatures:
    """The features of one layer.

    Attributes:
        info: of the encoder.
        layer: from 1.
        normalize: whether each waveform is brought to zero mean and unit variance first.
        grid: which samples at 16 kHz a frame sees.
    """

    info: ModelInfo
    layer: int
    normalize: bool
    grid: FrameGrid

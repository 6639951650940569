"""The size of a generator, and what follows from it."""

from dataclasses import MISSING, dataclass, fields
from math import ceil, prod
from typing import Any

SAMPLE_RATES = (16_000, 22_050, 24_000, 44_100, 48_000)
FRAMES_A_SECOND = 50  # of WavLM and HuBERT: a hop of 320 samples at 16 kHz
_EDGE = 3  # frames, or samples, that the first and the last convolution see to each side


class VocoderError(ValueError):
    """A vocoder's configuration or folder that cannot be used."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The size of a generator; the defaults are kNN-VC's (with `feature_dim=1024`).

    Attributes:
        feature_dim: D, the width of the features.
        hidden_dim: width after the first, linear layer.
        upsample_channels: channels before upsampling; each stage halves them.
        upsample_factors: their product is the hop length in samples, a 50th of `sample_rate`.
        upsample_kernels: a kernel a stage; kernel minus factor must be even.
        resblock_kernels: odd kernels of the residual blocks that each stage averages.
        resblock_dilations: a tuple for each kernel: three dilations (HiFi-GAN's ResBlock1), or
            two (its lighter ResBlock2), the same number for all.
        sample_rate: of the waveform, Hz, one of `SAMPLE_RATES`.
    """

    feature_dim: int
    hidden_dim: int = 512
    upsample_channels: int = 512
    upsample_factors: tuple[int, ...] = (10, 8, 2, 2)
    upsample_kernels: tuple[int, ...] = (20, 16, 4, 4)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    sample_rate: int = 16_000

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GeneratorConfig":
        """Build from JSON values (lists become tuples); unknown or missing keys raise."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(values.keys() - known):
            raise VocoderError(f"generator: unknown key(s) {', '.join(unknown)}")
        if missing := sorted(required - values.keys()):
            raise VocoderError(f"generator: missing key(s) {', '.join(missing)}")
        return cls(**{name: _tuples(value) for name, value in values.items()})

    def __post_init__(self) -> None:
        pairs = list(zip(self.upsample_factors, self.upsample_kernels, strict=False))
        depths = {len(dilations) for dilations in self.resblock_dilations}
        stages = len(self.upsample_factors)
        if len(self.upsample_kernels) != stages or any(k < u or (k - u) % 2 for u, k in pairs):
            raise VocoderError("generator: one upsample kernel a factor, larger by an even number")
        if len(self.resblock_dilations) != len(self.resblock_kernels) or len(depths) != 1:
            raise VocoderError("generator: one tuple of dilations a resblock kernel, of one length")
        if not depths <= {2, 3} or any(kernel % 2 == 0 for kernel in self.resblock_kernels):
            raise VocoderError("generator: resblocks have odd kernels and two or three dilations")
        if self.upsample_channels % 2**stages:
            raise VocoderError(f"generator: upsample_channels must be a multiple of {2**stages}")
        if self.sample_rate not in SAMPLE_RATES:
            known = ", ".join(map(str, SAMPLE_RATES))
            raise VocoderError(f"generator: sample_rate is {self.sample_rate}; allowed are {known}")
        if self.hop_length * FRAMES_A_SECOND != self.sample_rate:
            raise VocoderError(
                f"generator: the product of upsample_factors is {self.hop_length}, not "
                f"{self.sample_rate // FRAMES_A_SECOND} (20 ms at {self.sample_rate} Hz)"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame, at `sample_rate`."""
        return prod(self.upsample_factors)

    @property
    def receptive_field(self) -> int:
        """Frames to each side of a frame that its samples depend on (11 at kNN-VC's size)."""
        # Backwards through the layers: the samples that the ones of frame 0 are made from.
        first, last = -_EDGE, self.hop_length - 1 + _EDGE
        # A residual block of three dilations has an undilated convolution after each dilated one.
        undilated = 1 if len(self.resblock_dilations[0]) == 3 else 0
        widest = max(
            sum((kernel - 1) // 2 * (dilation + undilated) for dilation in dilations)
            for kernel, dilations in zip(
                self.resblock_kernels, self.resblock_dilations, strict=True
            )
        )
        pairs = zip(self.upsample_factors, self.upsample_kernels, strict=True)
        for factor, kernel in reversed(list(pairs)):
            padding = (kernel - factor) // 2
            first = ceil((first - widest + padding - kernel + 1) / factor)
            last = (last + widest + padding) // factor
        return max(-first, last) + _EDGE


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

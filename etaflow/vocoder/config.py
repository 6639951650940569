"""The sizes of generators, and what follows from them."""

from dataclasses import MISSING, asdict, dataclass, fields
from math import ceil, prod
from typing import Any

SAMPLE_RATES = (16_000, 22_050, 24_000, 44_100, 48_000)
FRAMES_A_SECOND = 50  # of WavLM and HuBERT: a hop of 320 samples at 16 kHz
_EDGE = 3  # frames, or samples, that the first and the last convolution see to each side


class VocoderError(ValueError):
    """A vocoder's configuration or folder that cannot be used."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The size of a HiFi-GAN generator; the defaults are kNN-VC's (with `feature_dim=1024`).

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
        _check_rate(self.sample_rate)
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


@dataclass(frozen=True)
class IstftConfig:
    """The size of a generator that ends in an inverse STFT.

    Attributes:
        feature_dim: D, the width of the features.
        hidden_dim: width of the blocks' inputs and outputs.
        intermediate_dim: width inside a block.
        blocks: ConvNeXt blocks, of which the second half sees frames after `upsample`.
        kernel: odd; frames that the first layer and each block see.
        n_fft: even; samples of the window, at least two hops.
        upsample: STFT frames made of each of the features.
        sample_rate: of the waveform, Hz, one of `SAMPLE_RATES`.
    """

    feature_dim: int
    hidden_dim: int = 512
    intermediate_dim: int = 1536
    blocks: int = 8
    kernel: int = 7
    n_fft: int = 1280
    upsample: int = 1
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        _check_rate(self.sample_rate)
        if self.kernel % 2 == 0:
            raise VocoderError(f"generator: kernel is {self.kernel}; it must be odd")
        if self.hop_length % self.upsample:
            raise VocoderError(
                f"generator: upsample is {self.upsample}, which does not divide the "
                f"{self.hop_length} samples of 20 ms at {self.sample_rate} Hz"
            )
        if self.n_fft % 2 or self.n_fft < 2 * self.hop_length // self.upsample:
            raise VocoderError(
                f"generator: n_fft is {self.n_fft}; it must be even and at least "
                f"{2 * self.hop_length // self.upsample}, two hops of the STFT"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame of the features, at `sample_rate`."""
        return self.sample_rate // FRAMES_A_SECOND

    @property
    def coarse_blocks(self) -> int:
        """Blocks before upsampling; all of them if there is none."""
        return self.blocks if self.upsample == 1 else self.blocks // 2

    @property
    def receptive_field(self) -> int:
        """Frames to each side of a frame that its samples depend on."""
        hop, reach = self.hop_length // self.upsample, self.kernel // 2
        # Backwards: what a sample is added up from, the blocks on either side of the upsampling,
        # the first layer. The window may reach one sample farther ahead than back.
        window = -(-(self.n_fft - hop) // 2)
        fine = -(-window // hop) + (self.blocks - self.coarse_blocks) * reach
        return -(-fine // self.upsample) + (self.coarse_blocks + 1) * reach


@dataclass(frozen=True)
class HarmonicConfig:
    """The size of a generator that filters pulses and noise.

    Attributes:
        feature_dim: D, the width of the features.
        hidden_dim: width of the blocks' inputs and outputs.
        intermediate_dim: width inside a block.
        blocks: ConvNeXt blocks.
        kernel: odd; frames that the first layer and each block see.
        bands: of the filters, evenly on the mel scale up to half the rate, of pulses and of noise.
        n_fft: even; samples of the window that is filtered, at least two hops of a quarter frame.
        sample_rate: of the waveform, Hz, one of `SAMPLE_RATES` but 22050 and 44100.
    """

    feature_dim: int
    hidden_dim: int = 256
    intermediate_dim: int = 768
    blocks: int = 6
    kernel: int = 7
    bands: int = 80
    n_fft: int = 512
    sample_rate: int = 16_000
    upsample = 4  # filters a frame

    def __post_init__(self) -> None:
        _check_rate(self.sample_rate)
        if self.kernel % 2 == 0:
            raise VocoderError(f"generator: kernel is {self.kernel}; it must be odd")
        if self.bands < 2:
            raise VocoderError(f"generator: bands is {self.bands}; it must be 2 or more")
        if self.hop_length % self.upsample:
            raise VocoderError(
                f"generator: sample_rate is {self.sample_rate}; a harmonic generator has "
                f"{self.upsample} filters a frame, which do not divide {self.hop_length} samples"
            )
        if self.n_fft % 2 or self.n_fft < 2 * self.hop_length // self.upsample:
            raise VocoderError(
                f"generator: n_fft is {self.n_fft}; it must be even and at least "
                f"{2 * self.hop_length // self.upsample}, two hops of the filters"
            )

    @property
    def hop_length(self) -> int:
        """Samples a frame of the features, at `sample_rate`."""
        return self.sample_rate // FRAMES_A_SECOND

    @property
    def receptive_field(self) -> int:
        """Frames to each side of a frame that its samples depend on, but for the pulses' phase."""
        # A window to each side of a sample, a frame to interpolate with, the blocks, the first
        # layer.
        return -(-self.n_fft // self.hop_length) + 1 + (self.blocks + 1) * (self.kernel // 2)


AnyConfig = GeneratorConfig | IstftConfig | HarmonicConfig
KINDS: dict[str, type[AnyConfig]] = {
    "hifigan": GeneratorConfig,
    "istft": IstftConfig,
    "harmonic": HarmonicConfig,
}


def read_config(values: dict[str, Any]) -> AnyConfig:
    """Build from JSON values (lists become tuples); without a key `kind` they are HiFi-GAN's.

    Raises:
        VocoderError: keys or a kind are unknown, or missing, or the values do not fit each other.
    """
    kind = values.get("kind", "hifigan")
    if kind not in KINDS:
        raise VocoderError(f"generator: kind is {kind!r}; allowed are {', '.join(KINDS)}")
    cls, given = KINDS[kind], {name: value for name, value in values.items() if name != "kind"}
    known = {field.name for field in fields(cls)}
    required = {field.name for field in fields(cls) if field.default is MISSING}
    if unknown := sorted(given.keys() - known):
        raise VocoderError(f"generator: unknown key(s) {', '.join(unknown)}")
    if missing := sorted(required - given.keys()):
        raise VocoderError(f"generator: missing key(s) {', '.join(missing)}")
    return cls(**{name: _tuples(value) for name, value in given.items()})


def config_values(config: AnyConfig) -> dict[str, Any]:
    """What `read_config` reads; of a HiFi-GAN without `kind`, as files have always been."""
    (kind,) = (name for name, cls in KINDS.items() if type(config) is cls)
    return ({} if kind == "hifigan" else {"kind": kind}) | asdict(config)


def _check_rate(sample_rate: int) -> None:
    if sample_rate not in SAMPLE_RATES:
        known = ", ".join(map(str, SAMPLE_RATES))
        raise VocoderError(f"generator: sample_rate is {sample_rate}; allowed are {known}")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

"""HiFi-GAN's multi-period and multi-scale discriminators (arXiv 2010.05646), at any width.

SpeechBrain's have one size only. At `width=1` these have HiFi-GAN's channels, kernels, strides,
groups and norms; a CPU trains them at a sixteenth.
"""

from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

Judgement = tuple[torch.Tensor, list[torch.Tensor]]  # scores (B, N), feature maps of each layer


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The size of the discriminators.

    Attributes:
        width: multiplies every number of channels; 1 is HiFi-GAN's.
        periods: of the multi-period discriminator, samples.
        scales: of the multi-scale discriminator; each halves the rate of the one before.
    """

    width: float = 1.0
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3


class _Discriminator(nn.Module):
    convs: nn.ModuleList
    conv_post: nn.Module

    def judge(self, signal: torch.Tensor) -> Judgement:
        maps = []
        for conv in self.convs:
            signal = F.leaky_relu(conv(signal), 0.1)
            maps.append(signal)
        signal = self.conv_post(signal)
        return signal.flatten(1), [*maps, signal]


class PeriodDiscriminator(_Discriminator):
    """Judges a waveform (B, 1, T) folded to `period` columns."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(round(width * size) for size in (32, 128, 512, 1024, 1024))]
        strides = (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(sizes[i], sizes[i + 1], (5, 1), (strides[i], 1), (2, 0)))
            for i in range(len(strides))
        )
        self.conv_post = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, waveform: torch.Tensor) -> Judgement:
        """Scores and feature maps of (B, 1, T)."""
        waveform = F.pad(waveform, (0, -waveform.shape[2] % self.period), mode="reflect")
        return self.judge(waveform.unflatten(2, (-1, self.period)))


class ScaleDiscriminator(_Discriminator):
    """Judges a waveform (B, 1, T) by grouped 1-D convolutions."""

    def __init__(self, width: float, spectral: bool) -> None:
        super().__init__()
        norm = spectral_norm if spectral else weight_norm
        sizes = [1, *(round(width * size) for size in (128, 128, 256, 512, 1024, 1024, 1024))]
        kernels = (15, 41, 41, 41, 41, 41, 5)
        strides = (1, 2, 2, 4, 4, 1, 1)
        groups = (1, 4, 16, 16, 16, 16, 1)
        self.convs = nn.ModuleList(
            norm(
                nn.Conv1d(
                    sizes[i],
                    sizes[i + 1],
                    kernels[i],
                    strides[i],
                    kernels[i] // 2,
                    # A narrow layer may have fewer channels than HiFi-GAN has groups.
                    groups=gcd(groups[i], sizes[i], sizes[i + 1]),
                )
            )
            for i in range(len(kernels))
        )
        self.conv_post = norm(nn.Conv1d(sizes[-1], 1, 3, 1, 1))

    def forward(self, waveform: torch.Tensor) -> Judgement:
        """Scores and feature maps of (B, 1, T)."""
        return self.judge(waveform)


class Discriminator(nn.Module):
    """All periods, then all scales: a list of scores (B, N) and feature maps."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(p, config.width) for p in config.periods)
        self.scales = nn.ModuleList(
            ScaleDiscriminator(config.width, spectral=index == 0) for index in range(config.scales)
        )

    def forward(self, waveform: torch.Tensor) -> list[Judgement]:
        """Judge (B, 1, T); T must exceed the longest period."""
        judgements = [period(waveform) for period in self.periods]
        for index, scale in enumerate(self.scales):
            if index:
                waveform = F.avg_pool1d(waveform, 4, 2, padding=2)
            judgements.append(scale(waveform))
        return judgements

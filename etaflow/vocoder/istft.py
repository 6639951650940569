"""A generator that ends in an inverse STFT, after Vocos (arXiv 2306.00814)."""

import math

import torch
from torch import nn

from etaflow.vocoder.blocks import Block, Conv, Linear, draw_weights, overlap_add
from etaflow.vocoder.config import IstftConfig


class Istft(nn.Module):
    """ConvNeXt blocks, a log magnitude and a phase for every bin, and an inverse STFT.

    Unlike in Vocos a frame may become several before the second half of the blocks
    (`config.upsample`): at 50 frames a second a phase is hard to tell for 20 ms at once.
    """

    window: torch.Tensor

    def __init__(self, config: IstftConfig) -> None:
        """Draw the weights, of a normal distribution of deviation 0.02 as in Vocos."""
        super().__init__()
        dim, self.n_fft, self.upsample = config.hidden_dim, config.n_fft, config.upsample
        self.hop = config.hop_length // config.upsample
        self.embed = Conv(config.feature_dim, dim, config.kernel)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, config.intermediate_dim, config.kernel, 1 / config.blocks)
            for _ in range(config.blocks)
        )
        self.coarse = config.coarse_blocks
        self.split = Linear(dim, dim * self.upsample) if self.upsample > 1 else nn.Identity()
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = Linear(dim, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        draw_weights(self)

    def add_weight_norm(self) -> None:
        """There is none: layer norms do its work."""

    def remove_weight_norm(self) -> None:
        """There is none."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, 1, hop_length T); only in training outside of [-1, 1], too."""
        hidden = self.norm(self.embed(features))
        for block in self.blocks[: self.coarse]:
            hidden = block(hidden)
        # (B, T, upsample C) to (B, upsample T, C).
        hidden = self.split(hidden).unflatten(2, (self.upsample, -1)).flatten(1, 2)
        for block in self.blocks[self.coarse :]:
            hidden = block(hidden)
        # In float32 whatever the precision of the rest: there is no FFT of shorter numbers.
        magnitude, phase = self.head(self.last_norm(hidden)).float().chunk(2, dim=2)
        # Twice what a sine of full scale has under the window.
        magnitude = magnitude.clamp(max=math.log(self.n_fft / 2)).exp()
        waveform = self.invert(torch.polar(magnitude, phase)).unsqueeze(1)
        return waveform if self.training else waveform.clamp(-1, 1)

    def invert(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The waveform (B, hop T) of a spectrum (B, T, n_fft / 2 + 1)."""
        return overlap_add(torch.fft.irfft(spectrum, self.n_fft), self.window, self.hop)

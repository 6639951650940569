"""A generator that ends in an inverse STFT, after Vocos (arXiv 2306.00814)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from etaflow.products import linear
from etaflow.vocoder.config import IstftConfig


class _Linear(nn.Linear):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.weight, self.bias)


class _Conv(nn.Conv1d):
    """Over (B, T, C); an odd kernel that keeps the length by zeros at both ends."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        columns = hidden.transpose(1, 2).unsqueeze(2)
        weight, padding = self.weight.unsqueeze(2), (0, self.kernel_size[0] // 2)
        made = F.conv2d(columns, weight, self.bias, padding=padding, groups=self.groups)
        return made.squeeze(2).transpose(1, 2)


class Block(nn.Module):
    """A ConvNeXt block (arXiv 2201.03545) over (B, T, C), which it adds to."""

    def __init__(self, dim: int, intermediate_dim: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = _Conv(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand, self.contract = _Linear(dim, intermediate_dim), _Linear(intermediate_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, C) to (B, T, C)."""
        inner = self.expand(self.norm(self.depthwise(hidden)))
        return hidden + self.scale * self.contract(F.gelu(inner))


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
        self.embed = _Conv(config.feature_dim, dim, config.kernel)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, config.intermediate_dim, config.kernel, 1 / config.blocks)
            for _ in range(config.blocks)
        )
        self.coarse = config.coarse_blocks
        self.split = _Linear(dim, dim * self.upsample) if self.upsample > 1 else nn.Identity()
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = _Linear(dim, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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
        waveform = self._invert(torch.polar(magnitude, phase)).unsqueeze(1)
        return waveform if self.training else waveform.clamp(-1, 1)

    def _invert(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Overlap (B, T, n_fft / 2 + 1) to (B, hop T): frame t is centred on its own samples.

        `torch.istft` has no such padding, which Vocos calls "same".
        """
        frames = torch.fft.irfft(spectrum, self.n_fft) * self.window
        weights = self.window.square().expand(1, spectrum.shape[1], -1)
        return self._overlap(frames) / self._overlap(weights)

    def _overlap(self, frames: torch.Tensor) -> torch.Tensor:
        """Add (B, T, n_fft) up every hop samples; (B, hop T)."""
        count, before = frames.shape[1], (self.n_fft - self.hop) // 2
        size = (count - 1) * self.hop + self.n_fft
        added = F.fold(frames.transpose(1, 2), (1, size), (1, self.n_fft), stride=(1, self.hop))
        return added[:, 0, 0, before : before + count * self.hop]

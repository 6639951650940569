"""kNN-VC's generator in plain PyTorch, from its public definition, as a reference to compare with.

Weight norm of the old kind, PyTorch's order of memory, and the names of upstream's checkpoints
(https://github.com/bshall/knn-vc, hifigan/models.py and config_v1_wavlm.json).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import remove_weight_norm, weight_norm

DILATIONS = (1, 3, 5)


def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel - 1) // 2
    return weight_norm(nn.Conv1d(inputs, outputs, kernel, padding=padding, dilation=dilation))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(conv(channels, channels, kernel, d) for d in DILATIONS)
        self.convs2 = nn.ModuleList(conv(channels, channels, kernel) for _ in DILATIONS)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            inner = dilated(F.leaky_relu(signal, 0.1))
            signal = plain(F.leaky_relu(inner, 0.1)) + signal
        return signal


class UpstreamGenerator(nn.Module):
    """(B, T, D) to (B, 1, 320 T); the defaults are kNN-VC's size."""

    def __init__(
        self,
        feature_dim: int = 1024,
        hidden_dim: int = 512,
        channels: int = 512,
        factors: tuple[int, ...] = (10, 8, 2, 2),
        kernels: tuple[int, ...] = (3, 7, 11),
    ) -> None:
        super().__init__()
        self.num_kernels = len(kernels)
        self.lin_pre = nn.Linear(feature_dim, hidden_dim)
        self.conv_pre = conv(hidden_dim, channels, 7)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for factor in factors:
            up = nn.ConvTranspose1d(channels, channels // 2, 2 * factor, factor, factor // 2)
            channels //= 2
            self.ups.append(weight_norm(up))
            self.resblocks.extend(ResidualBlock(channels, kernel) for kernel in kernels)
        self.conv_post = conv(channels, 1, 7)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        signal = self.conv_pre(self.lin_pre(features).permute(0, 2, 1))
        for index, up in enumerate(self.ups):
            signal = up(F.leaky_relu(signal, 0.1))
            blocks = self.resblocks[index * self.num_kernels : (index + 1) * self.num_kernels]
            signal = sum(block(signal) for block in blocks) / self.num_kernels
        return torch.tanh(self.conv_post(F.leaky_relu(signal)))

    def normed(self) -> Iterator[nn.Module]:
        """All layers under weight norm."""
        return (module for module in self.modules() if hasattr(module, "weight_g"))

    def remove_weight_norm(self) -> "UpstreamGenerator":
        for module in list(self.normed()):
            remove_weight_norm(module)
        return self


def make_upstream(loudness: float = 3.0, **sizes: object) -> UpstreamGenerator:
    """One with random weights, whose magnitudes are not those of its directions.

    Fresh weights would give near-silence, in which any two generators agree: the magnitudes are
    raised by `loudness`.
    """
    torch.manual_seed(0)
    generator = UpstreamGenerator(**sizes).eval()
    with torch.no_grad():
        for module in generator.normed():
            module.weight_g *= loudness * (0.5 + torch.rand_like(module.weight_g))
    return generator

"""What generators in the manner of Vocos (arXiv 2306.00814) are made of, over (B, T, C)."""

import torch
import torch.nn.functional as F
from torch import nn

from etaflow.products import linear


class Linear(nn.Linear):
    """By the fastest product there is."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, N)."""
        return linear(hidden, self.weight, self.bias)


class Conv(nn.Conv1d):
    """Over (B, T, C); an odd kernel that keeps the length by zeros at both ends."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, C) to (B, T, N)."""
        columns = hidden.transpose(1, 2).unsqueeze(2)
        weight, padding = self.weight.unsqueeze(2), (0, self.kernel_size[0] // 2)
        made = F.conv2d(columns, weight, self.bias, padding=padding, groups=self.groups)
        return made.squeeze(2).transpose(1, 2)


class Block(nn.Module):
    """A ConvNeXt block (arXiv 2201.03545) over (B, T, C), which it adds to."""

    def __init__(self, dim: int, intermediate_dim: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depthwise = Conv(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand, self.contract = Linear(dim, intermediate_dim), Linear(intermediate_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, C) to (B, T, C)."""
        inner = self.expand(self.norm(self.depthwise(hidden)))
        return hidden + self.scale * self.contract(F.gelu(inner))


def draw_weights(network: nn.Module) -> None:
    """Draw those of all products from a normal distribution of deviation 0.02, as in Vocos."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def overlap_add(frames: torch.Tensor, window: torch.Tensor, hop: int) -> torch.Tensor:
    """Frames (B, T, N) of an inverse STFT to (B, hop T): frame t is centred on its own samples.

    They are windowed, and the sum divided by that of the squared windows. `torch.istft` has no such
    padding, which Vocos calls "same".
    """
    count, n_fft = frames.shape[1:]

    def added(parts: torch.Tensor) -> torch.Tensor:
        size, before = (count - 1) * hop + n_fft, (n_fft - hop) // 2
        whole = F.fold(parts.transpose(1, 2), (1, size), (1, n_fft), stride=(1, hop))
        return whole[:, 0, 0, before : before + count * hop]

    return added(frames * window) / added(window.square().expand(1, count, -1))

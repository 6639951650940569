"""HiFi-GAN's convolutions over signals that lie in memory frame after frame.

In that order oneDNN, which PyTorch hands convolutions to on a CPU, runs near the peak of the
processor; PyTorch's own order, channel after channel, takes two to four times as long. On a GPU
the layers are PyTorch's.
"""

import torch
import torch.nn.functional as F
from torch import nn

from etaflow.products import frames_first


class Conv(nn.Module):
    """An `nn.Conv1d` with an odd kernel that keeps the length by zeros at both ends.

    Its weight has that layer's name and shape, and can be put under weight norm.
    """

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(frames_first(layer.weight.detach())), layer.bias
        self.dilation = layer.dilation[0]
        self.padding = self.dilation * (layer.kernel_size[0] - 1) // 2

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, T) to (B, N, T)."""
        if not hidden.is_cpu:
            return F.conv1d(
                hidden.contiguous(),
                self.weight.contiguous(),
                self.bias,
                padding=self.padding,
                dilation=self.dilation,
            )
        return F.conv2d(
            frames_first(hidden).unsqueeze(2),
            frames_first(self.weight).unsqueeze(2),
            self.bias,
            padding=(0, self.padding),
            dilation=(1, self.dilation),
        ).squeeze(2)


class ConvTranspose(nn.Module):
    """An `nn.ConvTranspose1d`; its weight has that layer's name and shape."""

    def __init__(self, layer: nn.ConvTranspose1d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(frames_first(layer.weight.detach())), layer.bias
        self.stride, self.padding = layer.stride[0], int(layer.padding[0])

    def forward(self, hidden: torch.Tensor, output_size: None = None) -> torch.Tensor:
        """(B, C, T) to (B, N, stride T); `output_size` is a word of SpeechBrain's."""
        if not hidden.is_cpu:
            return F.conv_transpose1d(
                hidden.contiguous(),
                self.weight.contiguous(),
                self.bias,
                stride=self.stride,
                padding=self.padding,
            )
        return F.conv_transpose2d(
            frames_first(hidden).unsqueeze(2),
            frames_first(self.weight).unsqueeze(2),
            self.bias,
            stride=(1, self.stride),
            padding=(0, self.padding),
        ).squeeze(2)

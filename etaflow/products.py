"""Matrix products and convolutions at the speed that the processor has."""

import os

import torch
from torch.nn import functional as F

# oneDNN keeps what it compiled for the last 1,024 shapes, more than half a gigabyte when every
# utterance has its own length. It reads this before its first use, so whoever leaves work to it
# imports this module.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def linear(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear` of (B, T, K), as a 1 × 1 convolution where that is faster.

    PyTorch hands convolutions to oneDNN, which uses AVX-512 on every processor that has it, and
    matrix products to MKL, which keeps to AVX2 on those that are not Intel's.
    """
    if hidden.is_cpu and torch.backends.cpu.get_cpu_capability() == "AVX512":
        columns = hidden.transpose(1, 2).unsqueeze(2)
        # Over a height of 1 dilation does nothing, but PyTorch keeps a plain 1 × 1 convolution from
        # oneDNN when there is one thread.
        made = F.conv2d(columns, weight[:, :, None, None], bias, dilation=(2, 1))
        return made.squeeze(2).transpose(1, 2)
    return F.linear(hidden, weight, bias)


def frames_first(tensor: torch.Tensor) -> torch.Tensor:
    """The same (B, C, T), in memory as (B, T, C), which oneDNN's convolutions prefer."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)

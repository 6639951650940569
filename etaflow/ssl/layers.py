"""The layers of WavLM and HuBERT in another order of memory.

The weights and the arithmetic are those of transformers. Frames stay in channels-last order
throughout, which saves the copies around every norm, and on processors with AVX-512 everything
heavy is a convolution (see `etaflow.products`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from etaflow.products import linear

# Frames of the front-end computed at a time on a CPU: the first convolution has 64 rows a frame,
# and memory beyond 32 MB is given back to the system and zeroed again at every step.
BLOCK_FRAMES = 150
BLOCK_ROWS = 64 * BLOCK_FRAMES


class Linear(nn.Module):
    """An `nn.Linear` of (B, T, K)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, K) to (B, T, N)."""
        return linear(hidden, self.weight, self.bias)


class Conv(nn.Module):
    """An `nn.Conv1d` whose input and output (B, C, T) lie in memory as (B, T, C)."""

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        weight = layer.weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.weight, self.bias = nn.Parameter(weight), layer.bias
        self.stride, self.padding, self.groups = layer.stride[0], layer.padding[0], layer.groups

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, C, T) to (B, N, T')."""
        return F.conv2d(
            hidden.unsqueeze(2),
            self.weight,
            self.bias,
            (1, self.stride),
            (0, int(self.padding)),
            groups=self.groups,
        ).squeeze(2)


def channel_moments(
    first: Callable[[torch.Tensor], torch.Tensor], waveform: torch.Tensor, kernel: int, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance (C,) of a convolution's output over all of a waveform (samples,).

    Summed in blocks. They are float64: an offset in the waveform would eat float32.

    Args:
        first: the convolution, (samples,) to (T, C).
        waveform: of any length.
        kernel: of the convolution, samples.
        stride: of the convolution, samples.
    """
    count = (len(waveform) - kernel) // stride + 1
    total, square = torch.zeros(2, 1, dtype=torch.float64, device=waveform.device)
    for start in range(0, count, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, count)
        hidden = first(waveform[start * stride : (stop - 1) * stride + kernel]).double()
        total, square = total + hidden.sum(0), square + (hidden * hidden).sum(0)
    mean = total / count
    return mean, (square / count - mean * mean).clamp(min=0)


class FrontEnd(nn.Module):
    """The convolutions of wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477, section 2).

    Takes one waveform at a time: that needs no padding, which a group norm would take into its
    statistics, and the products are large enough to fill a processor. `transformers` normalises
    over a whole utterance; so do we, also where a long one is encoded in chunks.
    """

    def __init__(self, extractor: Any, hop_length: int, field: int) -> None:
        super().__init__()
        layers = list(extractor.conv_layers)
        self.hop_length, self.field = hop_length, field
        first = layers[0].conv
        # One channel in: a product with the windows of the waveform.
        self.weight, self.bias = nn.Parameter(first.weight.detach().squeeze(1)), first.bias
        self.kernel, self.stride = first.kernel_size[0], first.stride[0]
        self.convs = nn.ModuleList(Conv(layer.conv) for layer in layers[1:])
        self.norms = nn.ModuleList(getattr(layer, "layer_norm", nn.Identity()) for layer in layers)
        self.grouped = isinstance(self.norms[0], nn.GroupNorm)

    def statistics(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What a group norm (a group a channel) takes from all of a waveform (samples,).

        The mean and the standard deviation (C,) of the first convolution's output, or None for
        models with layer norms.
        """
        if not self.grouped:
            return None
        mean, variance = channel_moments(self._first, waveform, self.kernel, self.stride)
        norm: Any = self.norms[0]
        return mean.float(), torch.sqrt(variance + norm.eps).float()

    def forward(
        self,
        waveform: torch.Tensor,
        statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """(samples,) to (frames, C); for a group norm with the `statistics` of the whole."""
        total = (len(waveform) - self.field) // self.hop_length + 1
        step = BLOCK_FRAMES if waveform.is_cpu else total
        blocks = []
        for start in range(0, total, step):
            last = min(start + step, total) - 1
            # Frame i sees the samples hop i to hop i + field - 1.
            seen = waveform[start * self.hop_length : last * self.hop_length + self.field]
            hidden = self._first(seen)
            if statistics is not None:
                mean, deviation = statistics
                weight, bias = self.norms[0].parameters()
                hidden = (hidden - mean) / deviation * weight + bias
            else:
                hidden = self.norms[0](hidden)
            hidden = _gelu(hidden)
            for conv, norm in zip(self.convs, self.norms[1:], strict=True):
                hidden = _gelu(norm(conv(hidden.t().unsqueeze(0)).squeeze(0).t()))
            blocks.append(hidden)
        return torch.cat(blocks)

    def _first(self, waveform: torch.Tensor) -> torch.Tensor:
        """The first convolution: (samples,) to (T, C)."""
        return F.linear(waveform.unfold(0, self.kernel, self.stride), self.weight, self.bias)


def _gelu(hidden: torch.Tensor) -> torch.Tensor:
    """In place, which F.gelu does not offer."""
    return torch.ops.aten.gelu_(hidden)


class GatedAttention(nn.Module):
    """WavLM's attention with a gated relative position bias (arXiv 2110.13900, equations 2 to 7).

    Takes the place of transformers' module, which forms every head's weights and their mean.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.weight = nn.Parameter(torch.cat([each.weight.detach() for each in projections]))
        self.bias = nn.Parameter(torch.cat([each.bias.detach() for each in projections]))
        self.output = Linear(attention.out_proj)
        self.gate, self.gate_scale = attention.gru_rel_pos_linear, attention.gru_rel_pos_const
        # Only the first block has the table of distances; it hands the bias on to the others.
        self.compute_bias = attention.compute_bias
        self.distances = getattr(attention, "rel_attn_embed", None)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **_: object,
    ) -> tuple[torch.Tensor, None, torch.Tensor]:
        """(B, T, D) to (B, T, D); `attention_mask` (B, T) is true for frames, false for padding.

        `position_bias` (H, T, T) is that of the block before.
        """
        batch, frames, dim = hidden_states.shape
        if position_bias is None:
            position_bias = self.compute_bias(frames, frames).contiguous()
        by_head = hidden_states.view(batch, frames, self.heads, -1).transpose(1, 2)
        gate = self.gate(by_head).view(batch, self.heads, frames, 2, 4).sum(-1).sigmoid()
        update, reset = gate.unbind(-1)
        gate = update * (reset * self.gate_scale.view(1, -1, 1) - 1.0) + 2.0
        projected = linear(hidden_states, self.weight, self.bias)
        query, key, value = projected.view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = torch.empty(
            batch, frames, self.heads, dim // self.heads, dtype=query.dtype, device=query.device
        )
        # A head at a time, the bias (B, T, T) mostly stays in a CPU's cache.
        step = 1 if hidden_states.is_cpu else self.heads
        for first in range(0, self.heads, step):
            heads = slice(first, first + step)
            bias = gate[:, heads, :, None] * position_bias[heads]
            if attention_mask is not None:
                bias.masked_fill_(~attention_mask[:, None, None], float("-inf"))
            attended[:, :, heads] = F.scaled_dot_product_attention(
                query[:, heads], key[:, heads], value[:, heads], bias.to(query.dtype)
            ).transpose(1, 2)
        return self.output(attended.view(batch, frames, dim)), None, position_bias


def rearrange(module: nn.Module) -> None:
    """Put these layers in the place of all linear layers and WavLM attentions under a module."""
    for name, child in module.named_children():
        if hasattr(child, "gru_rel_pos_linear"):
            setattr(module, name, GatedAttention(child))
        elif isinstance(child, nn.Linear):
            setattr(module, name, Linear(child))
        else:
            rearrange(child)

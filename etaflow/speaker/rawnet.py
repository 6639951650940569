"""Embeddings from the raw waveform: learnt band-pass filters and a residual network.

After RawNet2 and 3 (Jung et al. 2020, arXiv 2004.00526; 2022, arXiv 2203.08488), on SincNet's
filters (Ravanelli and Bengio 2018, arXiv 1808.00158).
"""

import math
from itertools import pairwise

import torch
from torch import nn

from etaflow.audio import SAMPLE_RATE

TAPS = 251
HOP = 5  # samples from one value of a filter's output to the next
NYQUIST = SAMPLE_RATE / 2
MIN_LOW_HZ, MIN_BAND_HZ = 30.0, 50.0
POOL = 3
# Blocks by their width in multiples of `channels`; all but the last pool.
WIDTHS = (1, 1, 2, 2, 2, 2)
EPSILON = 1e-5
SILENCE = 1e-10  # a variance: of a waveform of 16 bits whose last one flickers


def mel_bands(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper cut-offs (count,) in Hz of adjacent bands, equally wide in mel."""
    top = 2595 * math.log10(1 + NYQUIST / 700)
    bottom = 2595 * math.log10(1 + MIN_LOW_HZ / 700)
    edges = 700 * (10 ** (torch.linspace(bottom, top, count + 1, dtype=torch.float64) / 2595) - 1)
    return edges[:-1], edges[1:]


class SincConv(nn.Module):
    """Band-pass filters of which only the two cut-offs are learnt.

    Each is the difference of two ideal low-pass filters, cut to 251 taps by a Hamming window and
    scaled to gain 1 in the middle of its band (arXiv 1808.00158, equations 4 to 8). 30 Hz <= lower
    cut-off, lower + 50 Hz <= upper cut-off <= 8 kHz, for any values of the parameters. What 251
    taps resolve is 115 Hz (at -6 dB); narrower bands come out that wide.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        low, high = mel_bands(channels)
        low = low.clamp(MIN_LOW_HZ + 0.1, NYQUIST - 2 * MIN_BAND_HZ)
        band = (high - low).clamp(min=MIN_BAND_HZ + 1.0)
        # Logarithms of odds: of a place in the range that the bounds leave.
        self.low = nn.Parameter(
            torch.logit((low - MIN_LOW_HZ) / (NYQUIST - MIN_LOW_HZ - MIN_BAND_HZ)).float()
        )
        share = (band - MIN_BAND_HZ) / (NYQUIST - MIN_BAND_HZ - low)
        self.band = nn.Parameter(torch.logit(share.clamp(max=0.99)).float())
        steps = torch.arange(TAPS, dtype=torch.float32) - TAPS // 2
        self.register_buffer("steps", steps, persistent=False)
        window = torch.hamming_window(TAPS, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.steps: torch.Tensor
        self.window: torch.Tensor

    def cutoffs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lower and upper cut-offs (channels,) in Hz."""
        low = MIN_LOW_HZ + (NYQUIST - MIN_LOW_HZ - MIN_BAND_HZ) * self.low.sigmoid()
        high = low + MIN_BAND_HZ + (NYQUIST - MIN_BAND_HZ - low) * self.band.sigmoid()
        return low, high

    def filters(self) -> torch.Tensor:
        """Impulse responses (channels, 251)."""
        low, high = (cutoff[:, None] / SAMPLE_RATE for cutoff in self.cutoffs())
        ideal = 2 * high * torch.sinc(2 * high * self.steps)
        ideal = ideal - 2 * low * torch.sinc(2 * low * self.steps)
        cut = ideal * self.window
        middle = torch.cos(math.pi * (low + high) * self.steps)
        return cut / (cut * middle).sum(dim=1, keepdim=True)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Filtered (B, channels, (T - 251) // 5 + 1) of waveforms (B, T).

        A hop of 5 folds the spectrum, which does no harm within a band narrower than 1.6 kHz.
        """
        return nn.functional.conv1d(waveforms[:, None], self.filters()[:, None], stride=HOP)


def mask_of(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 1, size) of what is not padding."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None]


def masked(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Values (B, C, T) with zeros for padding."""
    return values if mask is None else values * mask


def statistics(
    values: torch.Tensor,
    mask: torch.Tensor | None,
    weights: torch.Tensor | None = None,
    epsilon: float = EPSILON,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (B, C, 1) over time of values (B, C, T), without padding.

    Args:
        values: (B, C, T).
        mask: (B, 1, T), or None if nothing is padding.
        weights: (B, C, T) that sum to 1 over time and are 0 for padding; else all frames count
            alike.
        epsilon: is added to the variance.
    """
    if weights is None:
        weights = torch.full_like(values[:, :1], 1 / values.shape[2])
        if mask is not None:
            weights = mask / mask.sum(dim=2, keepdim=True)
    mean = (values * weights).sum(dim=2, keepdim=True)
    variance = ((values - mean).square() * weights).sum(dim=2, keepdim=True)
    return mean, (variance + epsilon).sqrt()


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of (B, C, T) whose batch statistics leave padding out."""

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised values; what padding becomes is not said."""
        if mask is None or not self.training:
            return super().forward(values)
        frames, places = values.transpose(1, 2), mask[:, 0]
        normal = torch.zeros_like(frames)
        normal[places] = super().forward(frames[places]).to(normal.dtype)
        return normal.transpose(1, 2)


class SqueezeExcitation(nn.Module):
    """Scales each channel by what all are on average (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(width, width // 4, 1)
        self.excite = nn.Conv1d(width // 4, width, 1)

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Values (B, C, T), scaled."""
        mean, _ = statistics(values, mask)
        return values * self.excite(self.squeeze(mean).relu()).sigmoid()


class Block(nn.Module):
    """Two convolutions and a shortcut, then maxima over three frames, if it pools."""

    def __init__(self, inputs: int, width: int, pools: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, width, 3, padding=1, bias=False)
        self.first_norm = BatchNorm(width)
        self.second = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.second_norm = BatchNorm(width)
        self.excitation = SqueezeExcitation(width)
        self.shortcut = nn.Identity() if inputs == width else nn.Conv1d(inputs, width, 1)
        self.pool = nn.MaxPool1d(POOL) if pools else nn.Identity()

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, width, T // 3), or T of a block that does not pool, of values (B, inputs, T)."""
        values = masked(values, mask)
        inner = self.first_norm(self.first(values), mask).relu()
        inner = self.second_norm(self.second(masked(inner, mask)), mask)
        return self.pool((self.excitation(inner, mask) + self.shortcut(values)).relu())


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation over time, weights for each channel of its own.

    Okabe et al. 2018, arXiv 1803.10963; with ECAPA's context (arXiv 2005.07143, section 3.1).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(3 * width, width // 2, 1), nn.Tanh(), nn.Conv1d(width // 2, width, 1)
        )

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Means, then deviations (B, 2C) of values (B, C, T)."""
        context = [each.expand_as(values) for each in statistics(values, mask)]
        scores = self.attention(torch.cat([values, *context], dim=1))
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return torch.cat(statistics(values, mask, scores.softmax(dim=2)), dim=1)[:, :, 0]


class RawNet(nn.Module):
    """Waveforms to embeddings: band-pass filters, six residual blocks, attentive statistics.

    A frame of the last block sees 8741 samples (546 ms), and there is one every 1215 (76 ms); its
    norms and scales see the whole utterance. An utterance gets the same embedding alone and in a
    batch: padding is taken out before each convolution and of every mean.

    Attributes:
        dim: V, the size of an embedding.
        shortest: samples that a waveform needs, 1461 (91 ms).
    """

    def __init__(self, channels: int = 128, dim: int = 256) -> None:
        super().__init__()
        self.channels, self.dim = channels, dim
        self.filters = SincConv(channels)
        widths = [channels] + [factor * channels for factor in WIDTHS]
        self.blocks = nn.ModuleList(
            Block(inputs, width, pools=index < len(WIDTHS) - 1)
            for index, (inputs, width) in enumerate(pairwise(widths))
        )
        self.pooling = AttentiveStatistics(widths[-1])
        self.norm = nn.BatchNorm1d(2 * widths[-1])
        self.linear = nn.Linear(2 * widths[-1], dim)
        self.shortest = TAPS + HOP * (POOL ** (len(WIDTHS) - 1) - 1)

    def receptive_field(self) -> int:
        """Samples that one frame of the last block sees, norms and scales apart."""
        seen, step = TAPS, HOP
        for index in range(len(self.blocks)):
            seen += 2 * 2 * step
            if index < len(self.blocks) - 1:
                seen, step = seen + (POOL - 1) * step, step * POOL
        return seen

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings (B, V) of mono 16 kHz waveforms (B, T).

        Args:
            waveforms: of any loudness.
            lengths: (B,) samples of each that are not padding; None if all are T long.

        Raises:
            ValueError: a waveform is too short.
        """
        shortest = waveforms.shape[1] if lengths is None else int(lengths.min())
        if shortest < self.shortest:
            raise ValueError(f"a waveform has {shortest} samples; RawNet needs {self.shortest}")
        values = waveforms[:, None]
        mask = None if lengths is None else mask_of(lengths, values.shape[2])
        mean, deviation = statistics(values, mask, epsilon=SILENCE)
        # Brought to one loudness, so that what EPSILON is beside a filter's output is the same.
        values = self.filters(((values - mean) / deviation)[:, 0])
        frames = None if lengths is None else (lengths - TAPS) // HOP + 1
        mask = None if frames is None else mask_of(frames, values.shape[2])
        mean, deviation = statistics(values, mask)
        values = (values - mean) / deviation
        for index, block in enumerate(self.blocks):
            values = block(values, mask)
            if frames is not None and index < len(self.blocks) - 1:
                frames = frames // POOL
                mask = mask_of(frames, values.shape[2])
        return self.linear(self.norm(self.pooling(values, mask)))

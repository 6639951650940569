"""A generator that filters pulses and noise, after DDSP (arXiv 2001.04643) and NSF (1904.12088).

A small network tells from each frame its pitch, and how strong pulses and noise are in each band.
What is hard to learn for a small one, phases that go on from frame to frame, it need not learn.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from etaflow.pitch import BINS, likeliest_pitch
from etaflow.vocoder.blocks import Block, Conv, Linear, draw_weights, overlap_add
from etaflow.vocoder.config import HarmonicConfig

LOUDEST = 6.0  # of a band, natural logarithm
NOISE_SAMPLES = 1 << 20


@dataclass(frozen=True)
class Position:
    """Where in a longer waveform frames lie.

    Attributes:
        frame: the number of the frame `anchor` of those that are given.
        anchor: one of the given frames.
        phase: of the pulses at the sample before it, in turns.
    """

    frame: int = 0
    anchor: int = 0
    phase: float = 0.0


START = Position()


def pulses(turns: torch.Tensor, harmonics: torch.Tensor) -> torch.Tensor:
    """The sum of the first N cosines of a phase, as loud as one sine (B, T).

    Args:
        turns: the phase (B, T), in turns, in double precision: a pulse is a quotient of two numbers
            near 0.
        harmonics: N (B, T), one or more; of a broken N the last cosine is as much weaker, so that
            nothing jumps where the pitch glides.
    """
    whole = harmonics.floor()
    half = math.pi * turns
    below = torch.sin(half)
    flat = below.abs() < 1e-6
    ratio = torch.sin((2 * whole + 1) * half) / torch.where(flat, 1.0, below)
    cosines = (torch.where(flat, 2 * whole + 1, ratio) - 1) / 2
    last = (harmonics - whole) * torch.cos(2 * (whole + 1) * half)
    return ((cosines + last) / harmonics.sqrt()).float()


class Harmonic(nn.Module):
    """Pulses at the pitch and noise, each filtered as the frames say, and added."""

    window: torch.Tensor
    bands: torch.Tensor
    noise: torch.Tensor

    def __init__(self, config: HarmonicConfig) -> None:
        """Draw the weights, of a normal distribution of deviation 0.02 as in Vocos."""
        super().__init__()
        dim, self.n_fft, self.rate = config.hidden_dim, config.n_fft, config.sample_rate
        self.hop_length, self.upsample = config.hop_length, config.upsample
        self.hop = self.hop_length // self.upsample
        self.embed = Conv(config.feature_dim, dim, config.kernel)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, config.intermediate_dim, config.kernel, 1 / config.blocks)
            for _ in range(config.blocks)
        )
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)
        self.pitch, self.head = Linear(dim, BINS), Linear(dim, 2 * config.bands)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("bands", _bands(config), persistent=False)
        # The same noise in every recording, so that what is synthesised is always the same.
        drawn = torch.randn(NOISE_SAMPLES, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", drawn, persistent=False)
        draw_weights(self)

    def add_weight_norm(self) -> None:
        """There is none: layer norms do its work."""

    def remove_weight_norm(self) -> None:
        """There is none."""

    def forward(
        self,
        features: torch.Tensor,
        pitch: torch.Tensor | None = None,
        first_frames: torch.Tensor | None = None,
        position: Position = START,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Synthesise (B, T, D).

        Args:
            features: (B, T, D).
            pitch: (B, T) Hz to take in place of what the network tells, as in training.
            first_frames: (B,) where each item begins in the noise, in place of what `position`
                says: in training no two segments should have the same.
            position: of the frames, where they are of something longer.

        Returns:
            The waveform (B, 1, hop_length T), the scores (B, T, BINS) of the pitch, and the phase
            (B, hop_length T) of the pulses, in turns.
        """
        hidden = self.norm(self.embed(features))
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.last_norm(hidden)
        scores, levels = self.pitch(hidden), self.head(hidden)
        if first_frames is None:
            first = position.frame - position.anchor
            first_frames = torch.full((len(features),), first, device=features.device)
        # What is a logarithm, a phase or a spectrum is not for short numbers.
        with torch.autocast(features.device.type, enabled=False):
            return self._synthesise(scores.float(), levels.float(), pitch, first_frames, position)

    def _synthesise(
        self,
        scores: torch.Tensor,
        levels: torch.Tensor,
        pitch: torch.Tensor | None,
        first_frames: torch.Tensor,
        position: Position,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        told = likeliest_pitch(scores) if pitch is None else pitch
        turns, frequency = self._phase(told, position)
        harmonics = (self.rate / 2 / frequency).clamp(min=1)
        places = torch.arange(turns.shape[1], device=levels.device)
        noise = self.noise[(first_frames[:, None] * self.hop_length + places) % NOISE_SAMPLES]
        fine = _interpolated(levels.transpose(1, 2), self.upsample).transpose(1, 2)
        voiced, breath = fine.clamp(max=LOUDEST).chunk(2, dim=2)
        spectrum = self._spectrum(pulses(turns, harmonics)) * (voiced @ self.bands).exp()
        spectrum = spectrum + self._spectrum(noise) * (breath @ self.bands).exp()
        made = overlap_add(torch.fft.irfft(spectrum, self.n_fft), self.window, self.hop)
        waveform = made.unsqueeze(1)
        return waveform if self.training else waveform.clamp(-1, 1), scores, turns

    def _phase(self, pitch: torch.Tensor, position: Position) -> tuple[torch.Tensor, torch.Tensor]:
        """The phase (B, hop_length T), in turns of 0 to 1, and its frequency, Hz."""
        frequency = _interpolated(pitch[:, None], self.hop_length)[:, 0]
        # In double precision: of an hour at 500 Hz single would leave a tenth of a turn.
        passed = torch.cumsum(frequency.double() / self.rate, dim=1)
        anchor = position.anchor * self.hop_length
        before = passed[:, anchor - 1 : anchor] if anchor else 0.0
        return (passed - before + position.phase) % 1, frequency

    def _spectrum(self, signal: torch.Tensor) -> torch.Tensor:
        """The STFT (B, upsample T, n_fft / 2 + 1) of (B, hop_length T)."""
        before = (self.n_fft - self.hop) // 2
        padded = F.pad(signal, (before, self.n_fft - self.hop - before))
        return torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop) * self.window)


def _interpolated(values: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, T) to (B, C, factor T), linearly."""
    return F.interpolate(values, scale_factor=factor, mode="linear")


def _bands(config: HarmonicConfig) -> torch.Tensor:
    """From levels of bands to those of bins, (bands, n_fft / 2 + 1): linear on the mel scale."""
    frequencies = torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    mels = torch.log1p(frequencies / 700)
    places = mels / mels[-1] * (config.bands - 1)
    distances = (places - torch.arange(config.bands)[:, None]).abs()
    return (1 - distances).clamp(min=0)

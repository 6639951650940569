"""The pitch of recordings, and scores of it: what networks learn to tell."""

import math

import torch
import torch.nn.functional as F

LOWEST, HIGHEST = 50.0, 500.0  # Hz
BINS = 64  # of the scale that pitch is told on, equal ratios from the lowest to the highest
WINDOW_SECONDS, FRAME_SECONDS = 0.064, 0.02
VOICED = 0.55  # of the autocorrelation's peak; 1 where the signal repeats exactly
NEARLY = 0.85  # of the highest peak: the first such one, so that no multiple of the period is taken
BAND = 1500.0  # Hz, up to which is listened: above it peaks are so thin that samples miss them
SPREAD = 0.7  # of the target around the pitch, in bins
NEAR = 3  # bins around the likeliest that are averaged
QUIET = 0.003  # of the power of all of the waveform: below it there is no voice


def to_bins(pitch: torch.Tensor) -> torch.Tensor:
    """Hz to places 0 to BINS - 1 on the scale."""
    places = torch.log(pitch / LOWEST) * ((BINS - 1) / math.log(HIGHEST / LOWEST))
    return places.clamp(0, BINS - 1)


def from_bins(places: torch.Tensor) -> torch.Tensor:
    """Places on the scale to Hz."""
    return LOWEST * torch.exp(places * (math.log(HIGHEST / LOWEST) / (BINS - 1)))


def track_pitch(
    waveforms: torch.Tensor, frames: int, sample_rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pitch by the autocorrelation of the signal over that of the window (Boersma 1993).

    Args:
        waveforms: (B, T).
        frames: F, of 20 ms, in the middle of which the pitch is measured.
        sample_rate: Hz.

    Returns:
        Pitch (B, F), Hz between `LOWEST` and `HIGHEST`, of no meaning where there is no voice; and
        whether there is (B, F).
    """
    hop, size = sample_rate // 50, 2 * round(WINDOW_SECONDS * sample_rate / 2)
    before = size // 2 - round(FRAME_SECONDS * sample_rate / 2)
    padded = F.pad(waveforms, (before, size + hop))
    window = torch.hann_window(size, device=waveforms.device)
    cut = padded.unfold(1, size, hop)[:, :frames]
    cut = (cut - cut.mean(dim=2, keepdim=True)) * window

    def correlation(signal: torch.Tensor, bins: int) -> torch.Tensor:
        power = torch.fft.rfft(signal, 2 * size).abs().square()
        power[..., bins:] = 0
        made = torch.fft.irfft(power)[..., :size]
        return made / (made[..., :1] + 1e-9)

    first, last = math.floor(sample_rate / HIGHEST), math.ceil(sample_rate / LOWEST)
    low = correlation(cut, round(BAND * 2 * size / sample_rate))
    peaks = (low / correlation(window, size + 1).clamp(min=1e-3))[..., first : last + 1]
    inner = peaks[..., 1:-1]
    high = inner > NEARLY * inner.amax(dim=2, keepdim=True)
    at = (high & (inner > peaks[..., :-2]) & (inner >= peaks[..., 2:])).float()
    places = torch.where(at.any(dim=2), at.argmax(dim=2), inner.argmax(dim=2)) + 1
    left, middle, right = (
        peaks.gather(2, (places + shift)[..., None])[..., 0] for shift in (-1, 0, 1)
    )
    # The top of the parabola through three values.
    offset = (left - right) / (2 * (left - 2 * middle + right)).clamp(max=-1e-6)
    pitch = sample_rate / (first + places + offset.clamp(-0.5, 0.5))
    power = waveforms.square().mean(dim=1, keepdim=True)
    loud = cut.square().mean(dim=2) > QUIET * power
    return pitch.clamp(LOWEST, HIGHEST), (middle > VOICED) & loud


def likeliest_pitch(scores: torch.Tensor) -> torch.Tensor:
    """Hz (B, T) of scores (B, T, BINS): the mean around the likeliest bin."""
    places = torch.arange(BINS, device=scores.device)
    near = (places - scores.argmax(dim=2, keepdim=True)).abs() <= NEAR
    shares = scores.masked_fill(~near, -math.inf).softmax(dim=2)
    return from_bins((shares * places).sum(dim=2))


def pitch_loss(scores: torch.Tensor, pitch: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """Cross entropy of scores (B, T, BINS) and pitch (B, T), 0 where it is not voiced (B, T).

    It is averaged over all frames, so that a batch's is the mean of its parts'.
    """
    distances = torch.arange(BINS, device=scores.device) - to_bins(pitch)[..., None]
    targets = torch.exp(-(distances.square()) / (2 * SPREAD**2))
    targets = targets / targets.sum(dim=2, keepdim=True)
    losses = -(targets * scores.log_softmax(dim=2)).sum(dim=2)
    return (losses * voiced).mean()

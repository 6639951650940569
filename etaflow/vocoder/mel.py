"""The log-mel spectrogram that the vocoder is trained and judged by."""

from collections.abc import Sequence
from functools import lru_cache
from math import log
from typing import Any

import torch
import torch.nn.functional as F

WINDOW_SECONDS, HOP_SECONDS, FLOOR = 0.064, 0.02, 1e-5


def mel_bands(sample_rate: int) -> int:
    """Bands from 0 to half the rate, as many a mel as kNN-VC's 80 up to 8 kHz."""
    return round(80 * _slaney_mel(sample_rate / 2) / _slaney_mel(8000))


def _slaney_mel(frequency: float) -> float:
    """Slaney's scale above its linear part, which ends at 1 kHz."""
    return 15 + 27 * log(frequency / 1000) / log(6.4)


@lru_cache
def _spectrogram(
    sample_rate: int, window_seconds: float, hop_seconds: float, device: torch.device
) -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        sample_rate=sample_rate,
        # Even, as torchaudio's filters suppose.
        n_fft=2 * round(window_seconds * sample_rate / 2),
        hop_length=round(hop_seconds * sample_rate),
        f_min=0.0,
        f_max=sample_rate / 2,
        n_mels=round(mel_bands(sample_rate) * window_seconds / WINDOW_SECONDS),
        power=1.0,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    ).to(device)


def log_mel(
    waveform: torch.Tensor,
    sample_rate: int = 16_000,
    window_seconds: float = WINDOW_SECONDS,
    hop_seconds: float = HOP_SECONDS,
) -> torch.Tensor:
    """Natural logarithm of the mel magnitudes, floored at 1e-5.

    FFT and window 64 ms, hop 20 ms, Slaney mel bands from 0 to half the rate. At 16 kHz these are
    the 1024 and 320 samples and 80 bands of kNN-VC's vocoder (arXiv 2305.18975); at other rates
    there are as many bands a mel: 88 at 22.05 kHz, 90 at 24, 106 at 44.1, 108 at 48. The ends are
    padded by reflection, so that a frame stands for each hop.

    Args:
        waveform: (B, T).
        sample_rate: of the waveform, Hz; 20 ms must be a whole number of samples.
        window_seconds: of the FFT and window, in place of 64 ms; there are as many bands a ms.
        hop_seconds: between frames, in place of 20 ms.

    Returns:
        (B, bands, T // hop), values in [-11.5, about 3] for waveforms in [-1, 1].

    Raises:
        ValueError: `waveform` is not (B, T), or T is not more than half of what the window is
            longer than the hop (22 ms by default).
    """
    mel = _spectrogram(sample_rate, window_seconds, hop_seconds, waveform.device)
    left = (mel.n_fft - mel.hop_length) // 2
    right = mel.n_fft - mel.hop_length - left
    if waveform.dim() != 2 or waveform.shape[1] <= right:
        raise ValueError(f"log_mel needs (B, T) with T > {right}, not {tuple(waveform.shape)}")
    padded = F.pad(waveform, (left, right), mode="reflect")
    magnitudes: torch.Tensor = mel(padded)
    return magnitudes.clamp(min=FLOOR).log()


def mel_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    sample_rate: int,
    windows_ms: Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean absolute difference of the `log_mel` of two waveforms (B, T).

    With windows, the mean of that over each of them, a quarter of it apart: short ones see single
    pulses of the voice, long ones its harmonics (Parallel WaveGAN, arXiv 1910.11480).
    """
    scales = [(ms / 1000, ms / 4000) for ms in windows_ms or ()]
    differences = [
        F.l1_loss(log_mel(estimate, sample_rate, *scale), log_mel(reference, sample_rate, *scale))
        for scale in scales or [(WINDOW_SECONDS, HOP_SECONDS)]
    ]
    return torch.stack(differences).mean()

"""The log-mel spectrogram that the vocoder is trained and judged by."""

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
def _spectrogram(sample_rate: int, device: torch.device) -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        sample_rate=sample_rate,
        n_fft=round(WINDOW_SECONDS * sample_rate),
        hop_length=round(HOP_SECONDS * sample_rate),
        f_min=0.0,
        f_max=sample_rate / 2,
        n_mels=mel_bands(sample_rate),
        power=1.0,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    ).to(device)


def log_mel(waveform: torch.Tensor, sample_rate: int = 16_000) -> torch.Tensor:
    """Natural logarithm of the mel magnitudes, floored at 1e-5.

    FFT and window 64 ms, hop 20 ms, Slaney mel bands from 0 to half the rate. At 16 kHz these are
    the 1024 and 320 samples and 80 bands of kNN-VC's vocoder (arXiv 2305.18975); at other rates
    there are as many bands a mel: 88 at 22.05 kHz, 90 at 24, 106 at 44.1, 108 at 48. The ends are
    padded by reflection, so that a frame stands for each hop.

    Args:
        waveform: (B, T).
        sample_rate: of the waveform, Hz; 20 ms must be a whole number of samples.

    Returns:
        (B, bands, T // hop), values in [-11.5, about 3] for waveforms in [-1, 1].

    Raises:
        ValueError: `waveform` is not (B, T), or has 22 ms or fewer.
    """
    mel = _spectrogram(sample_rate, waveform.device)
    padding = (mel.n_fft - mel.hop_length) // 2
    if waveform.dim() != 2 or waveform.shape[1] <= padding:
        raise ValueError(f"log_mel needs (B, T) with T > {padding}, not {tuple(waveform.shape)}")
    padded = F.pad(waveform, (padding, padding), mode="reflect")
    magnitudes: torch.Tensor = mel(padded)
    return magnitudes.clamp(min=FLOOR).log()

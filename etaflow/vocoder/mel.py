"""The log-mel spectrogram that the vocoder is trained and judged by."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

N_FFT, HOP_LENGTH, N_MELS, FLOOR = 1024, 320, 80, 1e-5
_SAMPLE_RATE, _F_MAX = 16_000, 8_000.0


@lru_cache
def _spectrogram(device: torch.device) -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        sample_rate=_SAMPLE_RATE,
        n_fft=N_FFT,
        win_length=N_FFT,
        hop_length=HOP_LENGTH,
        f_min=0.0,
        f_max=_F_MAX,
        n_mels=N_MELS,
        power=1.0,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    ).to(device)


def log_mel(waveform: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of the mel magnitudes, floored at 1e-5.

    FFT and window 1024, hop 320, 80 Slaney mel bands from 0 to 8 kHz, as in kNN-VC's vocoder
    (arXiv 2305.18975). The ends are padded by reflection, so that a frame stands for each 320
    samples.

    Args:
        waveform: (B, T) at 16 kHz.

    Returns:
        (B, 80, T // 320), values in [-11.5, about 3] for waveforms in [-1, 1].

    Raises:
        ValueError: `waveform` is not (B, T), or has fewer than 353 samples.
    """
    padding = (N_FFT - HOP_LENGTH) // 2
    if waveform.dim() != 2 or waveform.shape[1] <= padding:
        raise ValueError(f"log_mel needs (B, T) with T > {padding}, not {tuple(waveform.shape)}")
    padded = F.pad(waveform, (padding, padding), mode="reflect")
    mel: torch.Tensor = _spectrogram(waveform.device)(padded)
    return mel.clamp(min=FLOOR).log()

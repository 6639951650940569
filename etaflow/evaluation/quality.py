"""How a waveform sounds: DNSMOS, and distances to a reference."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from etaflow.audio import SAMPLE_RATE, Waveform


def mel_distance(estimate: Waveform, reference: Waveform) -> float:
    """Mean absolute difference of the natural-log mel spectrograms of two (T,) waveforms.

    Raises:
        ValueError: shapes differ, or T is too short for a spectrum.
    """
    import torch

    from etaflow.vocoder import log_mel

    if estimate.shape != reference.shape:
        raise ValueError(f"estimate {estimate.shape} and reference {reference.shape} differ")
    mels = log_mel(torch.from_numpy(np.stack([estimate, reference])))
    return float((mels[0] - mels[1]).abs().mean())


def load_dnsmos() -> Callable[[Waveform], float]:
    """DNSMOS P.835 (Reddy et al. 2022): a judge of overall quality, 1 to 5, of 16 kHz (T,).

    A waveform that exceeds [-1, 1], as resampling may leave it, is scaled down to a peak of 1.
    """
    import onnxruntime  # type: ignore[import-untyped]
    from speechmos import dnsmos

    folder = Path(dnsmos.__file__).parent / "dnsmos_models"
    quality, opinion = str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx")
    model = dnsmos.DNSMOS(quality, opinion)
    # The session that speechmos opens takes all cores of the machine, granted or not.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model.onnx_sess = onnxruntime.InferenceSession(quality, options)
    # P.808's score is not read, and librosa, which makes its spectrogram, starts slowly.
    model.audio_melspec = lambda audio: np.zeros((1, 1))
    model.p808_onnx_sess = SimpleNamespace(run=lambda *_: [[[0.0]]])

    def judge(waveform: Waveform) -> float:
        peak = float(np.abs(waveform).max(initial=0.0))
        return float(model(waveform / max(1.0, peak), SAMPLE_RATE, False)["ovrl_mos"])

    return judge

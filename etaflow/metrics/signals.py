"""Ratios of signals."""

import numpy as np
import numpy.typing as npt


def si_snr(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-noise ratio in dB of (T,) waveforms, both made zero-mean.

    Luo and Mesgarani, "TasNet", ICASSP 2018; computed by torchmetrics in float64.

    Raises:
        ValueError: shapes differ or are not (T,), a value is NaN or infinite, or a waveform is
            silent (constant), for which the ratio is undefined.
    """
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

    signals = {
        "estimate": np.asarray(estimate, np.float64),
        "reference": np.asarray(reference, np.float64),
    }
    shapes = [signal.shape for signal in signals.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"estimate {shapes[0]} and reference {shapes[1]} must be vectors of one length"
        )
    for name, signal in signals.items():
        if not np.isfinite(signal).all():
            raise ValueError(f"the {name} has NaN or infinite samples")
        if np.ptp(signal) == 0:
            raise ValueError(f"the {name} is silent: its SI-SNR is undefined")
    tensors = [torch.from_numpy(signal) for signal in signals.values()]
    return float(scale_invariant_signal_noise_ratio(*tensors))

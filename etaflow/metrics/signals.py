"""Ratios of signals: of one to another, and of what a separation made to its sources.

Computed by torchmetrics in float64. Signals are brought to one level first, which changes no ratio
here: torchmetrics adds a constant to energies, which would count for quiet signals. Above some
120 dB the ratios are those of float64's rounding.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Permutation = npt.NDArray[np.int64]

DIAGONAL = 1e-12  # of the autocorrelation, where it is singular, or an estimate all too good


def si_snr(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-noise ratio in dB of (T,) waveforms, both made zero-mean.

    Luo and Mesgarani, "TasNet", ICASSP 2018. What others call SI-SDR is the same, but of signals
    as they are: torchmetrics and fast_bss_eval make them zero-mean when told to.

    Raises:
        ValueError: shapes differ or are not (T,), a value is NaN or infinite, or a waveform is
            silent (constant), for which the ratio is undefined.
    """
    signals = {
        "estimate": np.asarray(estimate, np.float64),
        "reference": np.asarray(reference, np.float64),
    }
    shapes = [signal.shape for signal in signals.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"estimate {shapes[0]} and reference {shapes[1]} must be vectors of one length"
        )
    return float(_si_snr(*(_at_one_level(signal, name) for name, signal in signals.items())))


def pit_si_snr(estimates: npt.ArrayLike, references: npt.ArrayLike) -> tuple[Floats, Permutation]:
    """SI-SNR in dB of each reference's estimate, by the permutation with the best mean.

    Args:
        estimates: (S, T) of one mixture, in any order.
        references: (S, T).

    Returns:
        Values (S,) in order of the references, and the permutation (S,): `estimates[permutation]`
        are in that order too.

    Raises:
        ValueError: the shapes differ or are not (S, T), a value is NaN or infinite, or a signal
            is silent (constant), for which the ratio is undefined.
    """
    return _best(*_pair(estimates, references), _si_snr)


def sdr(estimates: npt.ArrayLike, references: npt.ArrayLike) -> tuple[Floats, Permutation]:
    """Signal-to-distortion ratio in dB of each reference's estimate, as `pit_si_snr`.

    BSS Eval's: what a filter of 512 taps makes of the reference counts as signal (Vincent et al.,
    "Performance measurement in blind audio source separation", 2006; Scheibler, "SDR: medium rare
    with fast computations", ICASSP 2022). The permutation is that of the best mean SDR.

    Raises:
        ValueError: as `pit_si_snr`.
    """
    return _best(*_pair(estimates, references), _sdr)


def mixture_si_snr(mixture: npt.ArrayLike, references: npt.ArrayLike) -> Floats:
    """SI-SNR in dB of the mixture (T,) to each reference (S, T): that of separating nothing.

    Raises:
        ValueError: as `pit_si_snr`.
    """
    return _baseline(mixture, references, _si_snr)


def mixture_sdr(mixture: npt.ArrayLike, references: npt.ArrayLike) -> Floats:
    """SDR in dB of the mixture (T,) to each reference (S, T): that of separating nothing.

    Raises:
        ValueError: as `pit_si_snr`.
    """
    return _baseline(mixture, references, _sdr)


def si_snr_improvement(
    estimates: npt.ArrayLike, references: npt.ArrayLike, mixture: npt.ArrayLike
) -> Floats:
    """SI-SNRi in dB (S,): SI-SNR of each reference's estimate less that of the mixture (T,).

    The estimates (S, T) are permuted as by `pit_si_snr`; the mixture's own score depends on no
    order, so that the permutation is the best for both.

    Raises:
        ValueError: as `pit_si_snr`, or the mixture has another length.
    """
    return pit_si_snr(estimates, references)[0] - mixture_si_snr(mixture, references)


def sdr_improvement(
    estimates: npt.ArrayLike, references: npt.ArrayLike, mixture: npt.ArrayLike
) -> Floats:
    """SDRi in dB (S,): SDR of each reference's estimate less that of the mixture (T,).

    Raises:
        ValueError: as `pit_si_snr`, or the mixture has another length.
    """
    return sdr(estimates, references)[0] - mixture_sdr(mixture, references)


def _si_snr(estimates: "Tensor", references: "Tensor") -> "Tensor":
    from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

    return scale_invariant_signal_noise_ratio(estimates, references)


def _sdr(estimates: "Tensor", references: "Tensor") -> "Tensor":
    import torch
    from torchmetrics.functional.audio import signal_distortion_ratio

    try:
        values = signal_distortion_ratio(estimates, references)
        if values.isfinite().all():
            return values
    except torch.linalg.LinAlgError:
        pass
    regular = signal_distortion_ratio(estimates, references, load_diag=DIAGONAL)
    if not regular.isfinite().all():
        raise ValueError("the SDR is undefined: the references' shifts are all but dependent")
    return regular


def _best(
    estimates: "Tensor",
    references: "Tensor",
    metric: Callable[["Tensor", "Tensor"], "Tensor"],
) -> tuple[Floats, Permutation]:
    from scipy.optimize import linear_sum_assignment

    shape = (len(references), *estimates.shape)
    values = metric(estimates.expand(shape), references[:, None].expand(shape)).numpy()
    rows, best = linear_sum_assignment(values, maximize=True)
    return values[rows, best], best


def _baseline(
    mixture: npt.ArrayLike,
    references: npt.ArrayLike,
    metric: Callable[["Tensor", "Tensor"], "Tensor"],
) -> Floats:
    sources = _sources(references, "reference")
    signal = np.asarray(mixture, np.float64)
    if signal.shape != sources.shape[1:]:
        raise ValueError(
            f"mixture {signal.shape} must be a vector of the references' length {sources.shape[1:]}"
        )
    return metric(_at_one_level(signal, "mixture").expand(len(sources), -1), sources).numpy()


def _pair(estimates: npt.ArrayLike, references: npt.ArrayLike) -> tuple["Tensor", "Tensor"]:
    shapes = np.shape(estimates), np.shape(references)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"estimates {shapes[0]} and references {shapes[1]} must have one shape: "
            "as many estimates as references, all of one length"
        )
    return _sources(estimates, "estimate"), _sources(references, "reference")


def _sources(signals: npt.ArrayLike, name: str) -> "Tensor":
    import torch

    array = np.asarray(signals, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}s {array.shape} must be (sources, samples)")
    return torch.stack(
        [_at_one_level(signal, f"{name} {index + 1}") for index, signal in enumerate(array)]
    )


def _at_one_level(signal: Floats, name: str) -> "Tensor":
    import torch

    if not np.isfinite(signal).all():
        raise ValueError(f"the {name} has NaN or infinite samples")
    if np.ptp(signal) == 0:
        raise ValueError(f"the {name} is silent: its ratio to others is undefined")
    return torch.from_numpy(signal / np.abs(signal).max())

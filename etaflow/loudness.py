"""Loudness in LUFS (ITU-R BS.1770-4), of waveforms of any length."""

import math

import numpy as np
import numpy.typing as npt
from pyloudnorm import IIRfilter  # type: ignore[import-untyped]
from scipy.signal import lfilter

from etaflow.audio import BLOCK, Waveform

STEPS_A_WINDOW = 4  # windows of 400 ms that overlap by three quarters
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0


def _step_energies(waveform: Waveform, sample_rate: int) -> npt.NDArray[np.float64]:
    """Mean square of each 100 ms of the K-weighted waveform; a last part of a step is left out.

    A waveform of less than 400 ms is cut into four steps of its own.
    """
    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
    filters = [(each.b, each.a) for each in (shelf, high_pass)]
    states = [np.zeros(2), np.zeros(2)]
    size = min(sample_rate // 10, len(waveform) // STEPS_A_WINDOW)
    chunk = max(1, BLOCK // size) * size
    energies = []
    for start in range(0, len(waveform) // size * size, chunk):
        block = np.asarray(waveform[start : start + chunk], np.float64)
        block = block[: len(block) // size * size]
        for index, (b, a) in enumerate(filters):
            block, states[index] = lfilter(b, a, block, zi=states[index])
        energies.append(np.square(block).reshape(-1, size).mean(axis=1))
    return np.concatenate(energies)


def integrated_loudness(waveform: Waveform, sample_rate: int) -> float:
    """Integrated loudness of a mono (T,) in LUFS, over the windows that the two gates let pass.

    A waveform of less than 400 ms is one window. Silence is at minus infinity.
    """
    if len(waveform) < STEPS_A_WINDOW:
        return -math.inf
    steps = _step_energies(waveform, sample_rate)
    windows = np.lib.stride_tricks.sliding_window_view(steps, STEPS_A_WINDOW).mean(axis=1)
    with np.errstate(divide="ignore"):
        levels = -0.691 + 10 * np.log10(windows)
        heard = windows[levels >= ABSOLUTE_GATE]
        if not len(heard):
            return -math.inf
        gate = -0.691 + 10 * np.log10(heard.mean()) + RELATIVE_GATE
    heard = windows[levels > max(gate, ABSOLUTE_GATE)]
    return float(-0.691 + 10 * np.log10(heard.mean()))


def loudness_gain(waveform: Waveform, sample_rate: int, target: float) -> float:
    """The factor that brings a mono (T,) to `target` LUFS; 1 for silence."""
    loudness = integrated_loudness(waveform, sample_rate)
    return 1.0 if math.isinf(loudness) else 10 ** ((target - loudness) / 20)

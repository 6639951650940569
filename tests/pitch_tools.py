"""Voices of a known pitch."""

import numpy as np

from etaflow.audio import SAMPLE_RATE


def buzz(pitch: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A voice (T,) of the first ten harmonics of a pitch (T,), Hz."""
    turns = np.cumsum(pitch / SAMPLE_RATE)
    wave = sum(np.cos(2 * np.pi * k * turns) / k for k in range(1, 11))
    drawn = np.random.default_rng(seed).standard_normal(len(pitch))
    return np.asarray(0.1 * wave + noise * drawn, np.float32)

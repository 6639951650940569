import math
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etaflow import loudness
from etaflow.audio import read_audio
from etaflow.loudness import integrated_loudness, loudness_gain


def speech_like(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Noise with pauses and a level that changes, so that both gates have something to do."""
    generator = np.random.default_rng(seed)
    levels = generator.choice([0.0, 1e-4, 0.003, 0.1, 0.2], round(seconds * 5) + 1)
    samples = generator.normal(size=round(seconds * rate)).astype(np.float32)
    return samples * np.repeat(levels, rate // 5)[: len(samples)].astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_it_is_that_of_pyloudnorm(rate: int) -> None:
    for seed in range(5):
        # Whole steps of 100 ms: of a part, pyloudnorm counts one when it is over half of one.
        waveform = speech_like(3.1, rate, seed)
        expected = pyloudnorm.Meter(rate).integrated_loudness(waveform.astype(float))
        assert integrated_loudness(waveform, rate) == pytest.approx(expected, abs=1e-6)


def test_real_speech_and_short_pieces_of_it(speech_dir: Path) -> None:
    path = min((speech_dir / "LibriSpeech").rglob("*.flac"))
    waveform = read_audio(path)[:48_000]
    meter = pyloudnorm.Meter(16_000)
    assert integrated_loudness(waveform, 16_000) == pytest.approx(
        meter.integrated_loudness(waveform.astype(float)), abs=1e-6
    )
    piece = waveform[20_000:24_000]
    meter = pyloudnorm.Meter(16_000, block_size=0.25)
    assert integrated_loudness(piece, 16_000) == pytest.approx(
        meter.integrated_loudness(piece.astype(float)), abs=1e-6
    )


def test_it_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = speech_like(5, 16_000, 0)
    whole = integrated_loudness(waveform, 16_000)
    monkeypatch.setattr(loudness, "BLOCK", 5_000)
    assert integrated_loudness(waveform, 16_000) == pytest.approx(whole, abs=1e-9)


@given(st.floats(-40, -5), st.integers(0, 100))
def test_the_gain_brings_it_to_the_target(target: float, seed: int) -> None:
    waveform = np.random.default_rng(seed).normal(0, 0.05, 12_000)
    gained = waveform * loudness_gain(waveform, 16_000, target)
    assert integrated_loudness(gained, 16_000) == pytest.approx(target, abs=1e-3)


@pytest.mark.parametrize("size", [0, 3, 4, 1_000, 20_000])
def test_silence_is_left_alone(size: int) -> None:
    silence = np.zeros(size, np.float32)
    assert integrated_loudness(silence, 16_000) == -math.inf
    assert loudness_gain(silence, 16_000, -16) == 1.0

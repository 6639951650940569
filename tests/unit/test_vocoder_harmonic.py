"""The generator that filters pulses and noise, and the pitch that it learns."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etaflow.audio import SAMPLE_RATE
from etaflow.pitch import (
    BINS,
    HIGHEST,
    LOWEST,
    from_bins,
    likeliest_pitch,
    pitch_loss,
    to_bins,
    track_pitch,
)
from etaflow.vocoder import Generator, HarmonicConfig, VocoderError, read_config
from etaflow.vocoder.harmonic import pulses
from tests.pitch_tools import buzz

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = HarmonicConfig(6, hidden_dim=8, intermediate_dim=12, blocks=2, kernel=5, bands=20)


def make(config: HarmonicConfig = CONFIG) -> Generator:
    """Weights large enough for every layer to matter."""
    torch.manual_seed(0)
    generator = Generator(config).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return generator


def test_pulses_are_cosines_of_the_power_of_a_sine() -> None:
    turns = torch.rand(50, dtype=torch.double)
    for count in (1, 37):
        cosines = [torch.cos(2 * math.pi * k * turns) for k in range(1, count + 1)]
        expected = torch.stack(cosines).sum(dim=0) / math.sqrt(count)
        found = pulses(turns[None], torch.full((1, 50), float(count)))[0]
        torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    # Half of the third cosine.
    cosines = [torch.cos(2 * math.pi * k * turns) for k in (1, 2, 3)]
    expected = (cosines[0] + cosines[1] + cosines[2] / 2) / math.sqrt(2.5)
    found = pulses(turns[None], torch.full((1, 50), 2.5))[0]
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    # At the pulse itself the quotient is of two zeros.
    top = pulses(torch.zeros(1, 1, dtype=torch.double), torch.full((1, 1), 37.0))
    assert float(top) == pytest.approx(math.sqrt(37))
    grid = torch.arange(1000, dtype=torch.double)[None] / 1000
    for count in (1.0, 9.0):
        assert float(pulses(grid, torch.tensor([[count]])).square().mean()) == pytest.approx(0.5)


@pytest.mark.parametrize("hertz", [60.0, 97.0, 123.4, 210.0, 333.3, 450.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_pitch_of_a_voice_is_found(hertz: float, noise: float) -> None:
    wave = torch.from_numpy(buzz(np.full(16_000, hertz), noise))
    pitch, voiced = track_pitch(wave[None], 50, SAMPLE_RATE)
    inner = slice(2, -2)
    assert voiced[0, inner].all()
    assert (pitch[0, inner] / hertz - 1).abs().max() < 0.01


def test_a_gliding_pitch_is_followed() -> None:
    glide = np.geomspace(100, 200, 32_000)
    pitch, voiced = track_pitch(torch.from_numpy(buzz(glide))[None], 100, SAMPLE_RATE)
    expected = torch.from_numpy(glide[160::320][:100].astype(np.float32))
    assert voiced[0, 2:-2].all()
    assert (pitch[0, 2:-2] / expected[2:-2] - 1).abs().max() < 0.02


def test_noise_and_silence_have_no_voice() -> None:
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    assert track_pitch(noise, 50, SAMPLE_RATE)[1].float().mean() < 0.1
    assert not track_pitch(torch.zeros(1, 16_000), 50, SAMPLE_RATE)[1].any()
    # What is faint beside the rest is no voice, either.
    loud = torch.from_numpy(buzz(np.full(8_000, 120.0)))
    both = torch.cat([loud, 1e-3 * loud])
    voiced = track_pitch(both[None], 50, SAMPLE_RATE)[1][0]
    assert voiced[2:23].all()
    assert not voiced[28:].any()


def test_other_rates_have_the_same_frames() -> None:
    # 120 Hz where it is taken for 48 kHz.
    wave = torch.from_numpy(buzz(np.full(48_000, 40.0)))
    pitch, _ = track_pitch(wave[None], 50, 48_000)
    assert pitch.shape == (1, 50)
    assert (pitch[0, 2:-2] / 120 - 1).abs().max() < 0.01


def test_bins_are_equal_ratios() -> None:
    hertz = from_bins(torch.arange(BINS))
    assert hertz[[0, -1]].tolist() == pytest.approx([LOWEST, HIGHEST])
    torch.testing.assert_close(hertz[1:] / hertz[:-1], (hertz[1] / hertz[0]).expand(BINS - 1))
    torch.testing.assert_close(to_bins(hertz), torch.arange(BINS).float(), atol=1e-4, rtol=0)
    assert to_bins(torch.tensor([1.0, 9999.0])).tolist() == [0, BINS - 1]


def test_the_loss_is_least_at_the_pitch_and_deaf_to_what_is_unvoiced() -> None:
    pitch = from_bins(torch.tensor([[10.0, 20.0, 30.0]]))
    voiced = torch.tensor([[True, True, False]])
    distances = torch.arange(BINS) - torch.tensor([10.0, 20.0, 50.0])[:, None]
    right = -distances.square()[None] / (2 * 0.7**2)
    assert pitch_loss(right, pitch, voiced) < pitch_loss(right.roll(1, dims=2), pitch, voiced)
    torch.testing.assert_close(likeliest_pitch(right)[0, :2], pitch[0, :2], rtol=1e-3, atol=0)
    other = right.clone()
    other[0, 2] = 0
    assert pitch_loss(right, pitch, voiced) == pitch_loss(other, pitch, voiced)
    assert pitch_loss(right, pitch, torch.zeros(1, 3, dtype=torch.bool)) == 0
    # Of two places far apart the likelier counts, and not what lies between.
    two = torch.full((1, 1, BINS), -20.0)
    two[0, 0, 5], two[0, 0, 50] = 0.5, 0.0
    torch.testing.assert_close(likeliest_pitch(two), from_bins(torch.tensor([[5.0]])))


@pytest.mark.parametrize("hertz", [110.0, 240.0])
def test_it_speaks_at_the_pitch_that_is_asked_for(hertz: float) -> None:
    generator = make()
    with torch.no_grad():
        generator.network.head.weight.zero_()
        generator.network.head.bias[:20], generator.network.head.bias[20:] = -2.0, -12.0
        features = torch.randn(1, 60, 6)
        waveform, scores = generator(features, torch.full((1, 60), hertz))
    assert scores.shape == (1, 60, BINS)
    found, voiced = track_pitch(waveform[:, 0], 60, SAMPLE_RATE)
    assert voiced[0, 3:-3].all()
    assert (found[0, 3:-3] / hertz - 1).abs().max() < 0.01


def test_levels_are_those_of_pulses_and_noise() -> None:
    generator = make()
    with torch.no_grad():
        head = generator.network.head
        head.weight.zero_()
        powers = []
        for voice, breath in ((-4.0, -30.0), (-3.0, -30.0), (-30.0, -4.0), (-30.0, -3.0)):
            head.bias[:20], head.bias[20:] = voice, breath
            powers.append(float(generator(torch.zeros(1, 60, 6)).square().mean()))
    # A level is a natural logarithm of the amplitude; pulses have the power of a sine, noise 1.
    assert powers[1] / powers[0] == pytest.approx(math.e**2, rel=0.02)
    assert powers[3] / powers[2] == pytest.approx(math.e**2, rel=0.02)
    assert powers[0] == pytest.approx(0.5 * math.exp(-8), rel=0.1)
    assert powers[2] == pytest.approx(math.exp(-8), rel=0.1)


def test_a_synthesis_is_always_the_same_and_alone_as_in_a_batch() -> None:
    generator, features = make(), torch.randn(3, 40, 6)
    with torch.no_grad():
        together = generator(features)
        assert torch.equal(together, generator(features))
        _, scores, turns = generator.network(features)
        pitch = likeliest_pitch(scores)
        for index in range(3):
            one = slice(index, index + 1)
            _, alone_scores, alone_turns = generator.network(features[one])
            torch.testing.assert_close(alone_scores, scores[one], atol=1e-5, rtol=0)
            apart = (alone_turns - turns[one] + 0.5) % 1 - 0.5
            assert apart.abs().max() < 1e-4
            # Of one pitch: what its last digit does to the phase, a hundred harmonics multiply.
            alone = generator.network(features[one], pitch[one])[0]
            torch.testing.assert_close(alone, together[one], atol=1e-4, rtol=0)
    assert together.abs().max() <= 1
    assert float(together.std()) > 1e-3


def test_noise_does_not_repeat_within_ten_seconds() -> None:
    generator = make()
    with torch.no_grad():
        generator.network.head.weight.zero_()
        generator.network.head.bias[:20], generator.network.head.bias[20:] = -30.0, -3.0
        noise = generator(torch.zeros(1, 500, 6))[0, 0, 1000:-1000].numpy()
    spectrum = np.abs(np.fft.rfft(noise, 2 * len(noise))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(noise)]
    assert np.abs(correlation[2000:]).max() < 0.05 * correlation[0]


def test_segments_of_a_batch_have_noise_of_their_own() -> None:
    generator = make()
    with torch.no_grad():
        generator.network.head.weight.zero_()
        generator.network.head.bias[:20], generator.network.head.bias[20:] = -30.0, -3.0
        long = generator(torch.zeros(1, 30, 6))[0, 0]
        pitch, places = torch.full((2, 10), 100.0), torch.tensor([0, 15])
        parts, _ = generator(torch.zeros(2, 10, 6), pitch, places)
    # As in the whole, but for the ends.
    for part, first in zip(parts[:, 0], (0, 15), strict=True):
        inner = slice(640, -640)
        torch.testing.assert_close(
            part[inner], long[first * 320 :][:3200][inner], atol=1e-5, rtol=0
        )


def test_short_numbers_change_little() -> None:
    generator, features = make(), torch.randn(1, 40, 6)
    pitch = torch.full((1, 40), 120.0)
    with torch.no_grad():
        exact, _ = generator(features, pitch)
        with torch.autocast("cpu", torch.bfloat16):
            short, _ = generator(features, pitch)
    assert short.dtype == torch.float32
    assert (short - exact).square().mean() < 0.01 * exact.square().mean()


def test_all_of_it_is_trained() -> None:
    generator = make().train()
    features, pitch = torch.randn(2, 20, 6), torch.full((2, 20), 150.0)
    waveform, scores = generator(features, pitch)
    (waveform.square().mean() + pitch_loss(scores, pitch, torch.ones(2, 20))).backward()
    gradients = {name: weight.grad for name, weight in generator.named_parameters()}
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients.values())


def test_files_hold_the_same_generator(tmp_path: Path) -> None:
    generator = make()
    generator.save_pretrained(tmp_path, model="m")
    again = Generator.from_pretrained(tmp_path)
    assert again.config == CONFIG
    features = torch.randn(1, 9, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(features), generator(features), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kernel": 4}, "kernel is 4; it must be odd"),
        ({"bands": 1}, "bands is 1; it must be 2 or more"),
        ({"n_fft": 158}, "n_fft is 158; it must be even and at least 160"),
        ({"n_fft": 513}, "n_fft is 513; it must be even"),
        ({"sample_rate": 22_050}, "4 filters a frame, which do not divide 441 samples"),
        ({"sample_rate": 8_000}, "sample_rate is 8000; allowed are"),
        ({"upsample": 2}, r"unknown key\(s\) upsample"),
    ],
)
def test_a_config_that_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    values = {"kind": "harmonic", "feature_dim": 6, **change}
    with pytest.raises(VocoderError, match=named):
        read_config(json.loads(json.dumps(values)))

"""The network that is pretrained, and the encoder that it leaves."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from etaflow.pitch import BINS
from etaflow.ssl import SSLEncoder
from etaflow.ssl.pretraining.crops import BANDS
from etaflow.ssl.pretraining.network import (
    PretrainingNetwork,
    new_wavlm,
    save_encoder,
    start_as_fourier,
)
from tests.pretraining_tools import SIZES, noise


@pytest.mark.parametrize("phase", [0.0, 1.0, 2.5])
def test_the_first_convolution_starts_as_a_fourier_transform(phase: float) -> None:
    sizes = SIZES | {"conv_dim": [130, 8], "conv_kernel": [320, 2], "conv_stride": [80, 4]}
    torch.manual_seed(0)
    drawn = nn.Conv1d(1, 130, 320)
    torch.manual_seed(0)
    start_as_fourier(started := nn.Conv1d(1, 130, 320))
    assert torch.equal(started.weight[128:], drawn.weight[128:])  # two channels over
    convolution = new_wavlm(sizes).feature_extractor.conv_layers[0].conv
    assert torch.equal(convolution.weight[:128], started.weight[:128])
    # 32 bins of 250 Hz. A tone of a bin in the middle is strongest there, whatever its phase.
    centres = 125 + 250 * torch.arange(32)
    tones = torch.cos(2 * math.pi * centres[:, None] * torch.arange(320) / 16_000 + phase)
    with torch.no_grad():
        outputs = started(tones[:, None])[:, :128, 0].reshape(32, 32, 4)
    positive = outputs.clamp(min=0).square().sum(dim=2)
    assert torch.equal(positive.argmax(dim=1), torch.arange(32))
    torch.testing.assert_close(outputs[..., :2], -outputs[..., 2:])
    # Noise of unit power has 1 in each of the two, and more above 500 Hz: 6 dB an octave.
    powers = started.weight[:128].detach().square().sum(dim=(1, 2)).reshape(32, 4)
    expected = 1 + (centres / 500) ** 2
    torch.testing.assert_close(powers[2:30].mean(dim=1), expected[2:30], rtol=0.01, atol=0)


def test_a_narrow_first_convolution_is_drawn() -> None:
    torch.manual_seed(0)
    drawn = nn.Conv1d(1, 3, 10)
    before = drawn.weight.clone()
    start_as_fourier(drawn)
    assert torch.equal(drawn.weight, before)


def test_the_saved_encoder_gives_the_layers_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PretrainingNetwork(new_wavlm(SIZES), clusters=7).eval()
    waveform = noise(320 * 30 + 80)
    waveform = (waveform - waveform.mean()) / waveform.std()
    with torch.no_grad():
        layers = network.layers(torch.from_numpy(waveform)[None])
    info = save_encoder(network.wavlm, tmp_path, "small")
    assert (info.weights, info.architecture, info.source) == ("trained", "wavlm", "run")
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert info.revision == hashlib.sha256(weights).hexdigest()[:16]
    encoder = SSLEncoder.from_pretrained(tmp_path, layer=1, normalize=True)
    (found,) = encoder.encode([waveform * 3 + 1])
    assert found.shape == (30, 16)
    torch.testing.assert_close(found, layers[0], rtol=1e-4, atol=1e-4)


def test_scores_of_masked_frames_do_not_depend_on_what_is_masked() -> None:
    torch.manual_seed(0)
    network = PretrainingNetwork(new_wavlm(SIZES), clusters=7).eval()
    masked = torch.zeros(2, 30, dtype=torch.bool)
    masked[:, 10:20] = True
    waveforms = torch.from_numpy(np.stack([noise(320 * 30 + 80, 0)] * 2))
    # Frames 11 to 18 see samples of masked frames alone.
    waveforms[1, 320 * 12 : 320 * 18] = torch.from_numpy(noise(320 * 6, 1))
    with torch.no_grad():
        scores, pitches, spectra = network(waveforms, masked)
        seen, *_ = network(waveforms, torch.zeros_like(masked))
    assert (scores.shape, pitches.shape) == ((2, 30, 7), (2, 30, BINS))
    assert spectra.shape == (2, 30, BANDS)
    torch.testing.assert_close(scores[0], scores[1])
    assert (seen[0] - seen[1]).abs().max() > 0.01


def test_frames_of_another_grid_are_refused() -> None:
    sizes = SIZES | {"conv_kernel": [10, 3, 3, 2], "conv_stride": [5, 4, 4, 4]}
    with pytest.raises(ValueError, match=r"frames of 140 samples, 320 apart.* 400 and 320"):
        PretrainingNetwork(new_wavlm(sizes), clusters=7)

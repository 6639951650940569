"""The generator that ends in an inverse STFT, against plain references."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from etaflow.vocoder import Generator, IstftConfig, VocoderError, read_config
from etaflow.vocoder.istft import Istft

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES: dict[str, Any] = {"hidden_dim": 8, "intermediate_dim": 12, "blocks": 3, "kernel": 5}
CONFIGS = [
    IstftConfig(feature_dim=6, n_fft=1280, **SIZES),
    IstftConfig(feature_dim=6, n_fft=320, upsample=4, **SIZES),
    IstftConfig(feature_dim=6, n_fft=900, upsample=1, sample_rate=22_050, **SIZES),
]


def make(config: IstftConfig) -> Generator:
    """Weights large enough for every layer to matter."""
    torch.manual_seed(0)
    generator = Generator(config).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return generator


def plain_istft(spectrum: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Weighted overlap-add of (T, bins), a frame at a time; frame t is centred on its hop."""
    size = (len(spectrum) - 1) * hop + n_fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    added, weight = np.zeros(size), np.zeros(size)
    for index, bins in enumerate(spectrum):
        place = slice(index * hop, index * hop + n_fft)
        added[place] += np.fft.irfft(bins, n_fft) * window
        weight[place] += window**2
    before = (n_fft - hop) // 2
    kept = slice(before, before + len(spectrum) * hop)
    return added[kept] / weight[kept]


def plain_generator(generator: Generator, features: torch.Tensor) -> np.ndarray:
    """One utterance (T, D), layer by layer in PyTorch's own operations."""
    config, net = generator.config, generator.network
    assert isinstance(config, IstftConfig)
    assert isinstance(net, Istft)

    def norm(x: torch.Tensor, layer: Any) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        return x * layer.weight + layer.bias

    def conv(x: torch.Tensor, layer: Any, groups: int) -> torch.Tensor:
        made = F.conv1d(x.T[None], layer.weight, layer.bias, padding=2, groups=groups)
        return made[0].T

    x = norm(conv(features, net.embed, 1), net.norm)
    for index, block in enumerate(net.blocks):
        if config.upsample > 1 and index == 1:
            parts = (x @ net.split.weight.T + net.split.bias).split(config.hidden_dim, dim=1)
            x = torch.stack(parts, dim=1).reshape(-1, config.hidden_dim)
        inner = norm(conv(x, block.depthwise, config.hidden_dim), block.norm)
        inner = inner @ block.expand.weight.T + block.expand.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = x + block.scale * (inner @ block.contract.weight.T + block.contract.bias)
    bins = config.n_fft // 2 + 1
    out = norm(x, net.last_norm) @ net.head.weight.T + net.head.bias
    magnitude, phase = out[:, :bins].double().exp(), out[:, bins:].double()
    spectrum = magnitude.numpy() * np.exp(1j * phase.numpy())
    return plain_istft(spectrum, config.n_fft, config.hop_length // config.upsample)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("frames", [1, 9])
def test_generator_is_what_is_written_down(config: IstftConfig, frames: int) -> None:
    generator = make(config)
    features = torch.randn(2, frames, 6)
    with torch.no_grad():
        found = generator(features)
        expected = np.stack([plain_generator(generator, each) for each in features])
    assert found.shape == (2, 1, config.hop_length * frames)
    assert 0.01 < expected.std() < 0.5
    np.testing.assert_allclose(found[:, 0].numpy(), expected.clip(-1, 1), atol=2e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_spectrum_of_a_waveform_becomes_it_to_the_edges(config: IstftConfig) -> None:
    net, frames = Istft(config), 6 * config.upsample
    hop, before = net.hop, (net.n_fft - net.hop) // 2
    waveform = torch.randn(hop * frames)
    padded = F.pad(waveform, (before, net.n_fft))
    spectrum = torch.fft.rfft(padded.unfold(0, net.n_fft, hop)[:frames] * net.window)
    torch.testing.assert_close(net.invert(spectrum[None])[0], waveform, atol=1e-5, rtol=0)


def test_vocos_size_and_parameters() -> None:
    # Vocos: 512, 1536, 8 blocks of kernel 7; at 24 kHz n_fft 1024 and 100 mel bands have 13.5 M.
    generator = Generator(IstftConfig(feature_dim=100, n_fft=1024))
    blocks = 8 * (512 * 7 + 512 + 2 * 512 + 2 * 512 * 1536 + 1536 + 512 + 512)
    others = 100 * 512 * 7 + 512 + 2 * 512 + 2 * 512 + 512 * 1026 + 1026
    assert generator.num_parameters() == blocks + others == 13_531_650


def test_only_in_training_samples_leave_the_range() -> None:
    generator = make(CONFIGS[0])
    with torch.no_grad():
        generator.network.head.bias[:641] += 6
        loud = generator.train()(torch.zeros(1, 5, 6))
        clipped = generator.eval()(torch.zeros(1, 5, 6))
    assert loud.abs().max() > 1.5
    torch.testing.assert_close(clipped, loud.clamp(-1, 1))


def test_a_magnitude_has_an_end() -> None:
    generator = make(CONFIGS[0]).train()
    with torch.no_grad():
        generator.network.head.bias[:641] = 1e4
        assert generator(torch.zeros(1, 5, 6)).isfinite().all()


def test_a_seed_draws_the_same_weights_and_waveform() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(Generator(CONFIGS[1])(torch.ones(1, 4, 6)))
    assert torch.equal(*made)
    assert float(made[0].detach().std()) > 1e-3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "wavenet"}, r"kind is 'wavenet'; allowed are hifigan, istft"),
        (
            {"kind": "hifigan"},
            r"unknown key\(s\) blocks, intermediate_dim, kernel, n_fft, upsample",
        ),
        ({"upsample_factors": [320]}, r"unknown key\(s\) upsample_factors"),
        ({"kernel": 4}, "kernel is 4; it must be odd"),
        ({"upsample": 3}, "upsample is 3, which does not divide the 320 samples"),
        ({"n_fft": 638}, "n_fft is 638; it must be even and at least 640, two hops"),
        ({"n_fft": 1281}, "n_fft is 1281; it must be even"),
        ({"sample_rate": 8000}, "sample_rate is 8000; allowed are 16000"),
        ({"hidden_dim": 9}, r"embed\.weight is \(8, 6, 5\), not \(9, 6, 5\)"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, change: dict, named: str) -> None:
    make(CONFIGS[0]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["generator"]["kind"] == "istft"
    config["generator"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(VocoderError, match=named):
        Generator.from_pretrained(tmp_path)


def test_configs_return_from_json() -> None:
    for config in CONFIGS:
        values = {"kind": "istft", **{k: getattr(config, k) for k in config.__dataclass_fields__}}
        assert read_config(json.loads(json.dumps(values))) == config

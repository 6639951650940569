from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.network import embed
from etaflow.speaker.networks import create_network, load_network, save_network
from etaflow.speaker.rawnet import BatchNorm, RawNet, SincConv, mel_bands

CHANNELS, DIM = 32, 16


def raw_net(seed: int = 0) -> RawNet:
    """With norms that have seen data, so that they do something."""
    torch.manual_seed(seed)
    network = RawNet(CHANNELS, DIM)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.3)
    return network.eval()


def noises(lengths: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def decibels(filters: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """Gains (C,) of each filter at its own frequency, by the definition of the transform."""
    steps = np.arange(filters.shape[1])
    waves = np.exp(-2j * np.pi * hz[:, None] / 16_000 * steps)
    return 20 * np.log10(np.abs((filters * waves).sum(axis=1)))


@pytest.mark.parametrize("channels", [32, 128])
def test_filters_pass_their_band_and_no_other(channels: int) -> None:
    convolution = SincConv(channels)
    low, high = (each.detach().double().numpy() for each in convolution.cutoffs())
    filters = convolution.filters().detach().double().numpy()
    assert filters.shape == (channels, 251)
    response = np.abs(np.fft.rfft(filters, 16_000))  # a bin a Hz
    np.testing.assert_allclose(decibels(filters, (low + high) / 2), 0, atol=1e-3)
    # Below 255 Hz, the width of a Hamming window's main lobe, a band and its mirror image overlap.
    clear = low > 4 * 16_000 / 251
    assert clear.sum() > channels // 2
    peaks = response.argmax(axis=1)
    tolerance = 1  # Hz, of the bins
    assert (peaks >= low - tolerance)[clear].all()
    assert (peaks <= high + tolerance)[clear].all()
    below = decibels(filters, low / 2)[clear]
    above = decibels(filters, 2 * high)[clear & (2 * high < 8000)]
    assert below.max() < -20
    assert above.max() < -20
    # Bands that 251 taps resolve are 6 dB down at their cut-offs, as the ideal ones are.
    wide = clear & (high - low > 4 * 16_000 / 251) & (high < 7800)
    if channels == 32:
        assert wide.sum() >= 5
    np.testing.assert_allclose(decibels(filters[wide], low[wide]), -6, atol=0.2)
    np.testing.assert_allclose(decibels(filters[wide], high[wide]), -6, atol=0.2)


def test_bands_begin_adjacent_and_equally_wide_in_mel() -> None:
    low, high = mel_bands(20)
    torch.testing.assert_close(low[1:], high[:-1])
    assert low[0].item() == pytest.approx(30)
    assert high[-1].item() == pytest.approx(8000)
    mel = 2595 * torch.log10(1 + torch.stack([low, high]) / 700)
    widths = mel[1] - mel[0]
    torch.testing.assert_close(widths, widths[:1].expand(20))
    found = SincConv(20).cutoffs()
    wide = (high - low) > 60
    torch.testing.assert_close(found[0].double()[1:-1], low[1:-1], rtol=1e-4, atol=0.1)
    torch.testing.assert_close(found[1].double()[wide][:-1], high[wide][:-1], rtol=1e-4, atol=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 10.0, 100.0]))
def test_cutoffs_stay_in_order_and_below_nyquist(seed: int, scale: float) -> None:
    convolution = SincConv(8)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (convolution.low, convolution.band):
            parameter.copy_(scale * torch.randn(8, generator=generator))
    low, high = convolution.cutoffs()
    assert (low >= 30).all()
    assert (high - low >= 50 - 1e-2).all()  # float32 at 8 kHz
    assert (high <= 8000 + 1e-2).all()
    assert convolution.filters().isfinite().all()


def test_gradients_reach_the_cutoffs() -> None:
    network = raw_net().train()
    network(torch.stack(noises([8000, 8000]))).square().sum().backward()
    for parameter in (network.filters.low, network.filters.band):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).all()


def test_cutoffs_can_be_learnt() -> None:
    """One filter finds the tone that it is to pass, a few hundred Hz away."""
    torch.manual_seed(0)
    convolution = SincConv(1)
    with torch.no_grad():  # 800 to 1200 Hz
        convolution.low.fill_(torch.logit(torch.tensor(770 / 7920)))
        convolution.band.fill_(torch.logit(torch.tensor(350 / 7150)))
    optimizer = torch.optim.Adam(convolution.parameters(), lr=0.05)
    tone = torch.sin(2 * torch.pi * 1400 * torch.arange(4000) / 16_000)[None]
    for _ in range(60):
        optimizer.zero_grad()
        (-convolution(tone).square().mean()).backward()
        optimizer.step()
    low, high = (each.item() for each in convolution.cutoffs())
    assert low < 1400 < high


def test_an_utterance_gets_the_same_alone_and_in_a_batch() -> None:
    network = raw_net()
    waves = noises([1461, 12_345, 30_007, 4000, 12_345])
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    # Not zeros: padding is not to be looked at.
    for row, wave in zip(padded, waves, strict=True):
        row[len(wave) :] = 7.0
    lengths = torch.tensor([len(wave) for wave in waves])
    with torch.no_grad():
        alone = torch.cat([network(wave[None]) for wave in waves])
        together = network(padded, lengths)
    assert alone.shape == (5, DIM)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_equal_lengths_need_no_lengths() -> None:
    network = raw_net()
    waves = torch.stack(noises([6000, 6000]))
    with torch.no_grad():
        torch.testing.assert_close(network(waves), network(waves, torch.tensor([6000, 6000])))


def test_loudness_does_not_matter_but_the_signal_does() -> None:
    network = raw_net()
    (wave,) = noises([16_000])
    time = torch.arange(16_000) / 16_000
    with torch.no_grad():
        one = network(wave[None])
        with_tone = network((wave + torch.sin(2 * torch.pi * 440 * time))[None])
        quiet = network(0.01 * wave[None])
    torch.testing.assert_close(quiet, one, atol=1e-3, rtol=1e-3)
    assert (with_tone - one).norm() > 0.05 * one.norm()


def test_what_is_too_short_is_refused() -> None:
    network = raw_net()
    assert network.shortest == 1461
    with pytest.raises(ValueError, match="1460 samples; RawNet needs 1461"):
        network(torch.zeros(1, 1460))
    with pytest.raises(ValueError, match="900 samples"):
        network(torch.zeros(2, 4000), torch.tensor([4000, 900]))


def test_batch_norm_leaves_padding_out_of_its_statistics() -> None:
    torch.manual_seed(0)
    one, other = BatchNorm(3), torch.nn.BatchNorm1d(3)
    values = torch.randn(2, 3, 5)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])[:, None]
    found = one(values, mask)
    frames = torch.cat([values[0].T, values[1, :, :2].T])  # (7, 3)
    expected = other(frames)
    torch.testing.assert_close(found[0].T, expected[:5])
    torch.testing.assert_close(found[1, :, :2].T, expected[5:])
    torch.testing.assert_close(one.running_mean, other.running_mean)
    torch.testing.assert_close(one.running_var, other.running_var)


def test_receptive_field() -> None:
    """As far as a frame of the last block changes when a sample does."""

    class Same(torch.nn.Module):
        def forward(self, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return values

    network = raw_net()
    assert network.receptive_field() == 8741
    for index, block in enumerate(network.blocks):
        block.excitation = Same()
        if index < 5:
            block.pool = torch.nn.AvgPool1d(3)  # a maximum would hide what is not the largest
    waves = torch.zeros(1, 30_000, requires_grad=True)
    values = network.filters(waves)
    for block in network.blocks:
        # Biased so that no unit is cut off.
        values = block(values + 1, None)
    frame = values.shape[2] // 2
    (gradient,) = torch.autograd.grad(values[0, :, frame].sum(), waves)
    touched = gradient[0].nonzero()[:, 0]
    assert touched.max() - touched.min() + 1 == pytest.approx(8741, abs=4)
    with torch.no_grad():
        later = network.filters(torch.zeros(1, 30_000 + 1215))
        for block in network.blocks:
            later = block(later, None)
    assert later.shape[2] == values.shape[2] + 1


SETTINGS = {
    "kind": "wavlm-rawnet",
    "model": "wavlm-tiny",
    "normalize": True,
    "layer": 2,
    "channels": CHANNELS,
    "dim": DIM,
}


KINDS = ("weight", "bias")


def test_the_fused_network(wavlm_tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network(SETTINGS, wavlm_tiny)
    assert (network.dim, network.shortest) == (DIM, 1461)
    waves = [wave.numpy() for wave in noises([16_123, 1461, 9_999, 16_123])]
    alone = np.concatenate([embed(network, [wave]) for wave in waves])
    np.testing.assert_allclose(embed(network, waves), alone, atol=1e-5)
    raw = {f"rawnet.{name}" for name, _ in RawNet(CHANNELS, DIM).named_parameters()}
    new = {id(parameter) for parameter in network.new_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in new}
    assert names == raw | {f"{part}.{kind}" for part in ("norm", "linear") for kind in KINDS}
    # Both branches are heard.
    with torch.no_grad():
        frames, counts = network.backbone([torch.from_numpy(waves[0])])
        parts = torch.cat(
            [frames.sum(1) / counts, network.rawnet(torch.from_numpy(waves[0])[None])], dim=1
        )
        expected = network.norm(parts) @ network.linear.weight.T + network.linear.bias
    np.testing.assert_allclose(alone[:1], expected.numpy(), atol=1e-6)
    save_network(network, tmp_path, name="mine", weights="untrained")
    np.testing.assert_allclose(load_speaker_encoder(tmp_path).embed(waves), alone, atol=1e-5)
    again = load_network(tmp_path)[1]
    assert again.sizes() == network.sizes()
    assert again.pretrained == len(again.layers)


def test_a_frozen_model_leaves_the_raw_branch_to_be_trained(wavlm_tiny: Path) -> None:
    network = create_network(SETTINGS, wavlm_tiny)
    network.freeze(0)
    network.train()
    network(torch.stack(noises([8000, 8000]))).square().sum().backward()
    assert network.pretrained_parameters() == []
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert all(parameter.grad is not None for parameter in network.rawnet.parameters())


def test_settings_that_do_not_go_together(wavlm_tiny: Path) -> None:
    with pytest.raises(ModelError, match="folder of the model wavlm-tiny is not given"):
        create_network(SETTINGS)
    with pytest.raises(ModelError, match="has layers 1 to 4, asked for 9"):
        create_network({**SETTINGS, "layer": 9}, wavlm_tiny)
    with pytest.raises(ModelError, match="2 channels; it needs 4 or more"):
        create_network({**SETTINGS, "channels": 2}, wavlm_tiny)

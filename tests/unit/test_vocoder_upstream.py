"""kNN-VC's checkpoints in our generator, against upstream's written in plain PyTorch."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from etaflow.vocoder import Generator, GeneratorConfig, VocoderError
from tests.upstream_hifigan import UpstreamGenerator, make_upstream

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"feature_dim": 6, "hidden_dim": 8, "channels": 32}


def renamed(weights: dict[str, Any]) -> dict[str, Any]:
    """The names of PyTorch's weight norm of today."""
    today = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    for old, new in today.items():
        weights = {name.replace(old, new): value for name, value in weights.items()}
    return weights


def save(path: Path, weights: dict[str, Any], **others: Any) -> Path:
    torch.save({"generator": weights, **others}, path)
    return path


def compare(path: Path, upstream: UpstreamGenerator, frames: int) -> Generator:
    """The waveform of the checkpoint is upstream's to 1e-5, and is loud enough to tell."""
    ours = Generator.from_pretrained(path)
    features = torch.randn(2, frames, ours.config.feature_dim)
    with torch.no_grad():
        expected, found = upstream(features), ours(features)
    assert 0.05 < expected.std() < 0.5
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    return ours


def test_a_checkpoint_of_knn_vcs_size_says_what_upstream_says(tmp_path: Path) -> None:
    upstream = make_upstream()
    # What else upstream's trainings may have put beside the weights.
    others = {"steps": 2_500_000, "epoch": 3, "optim_g": {"state": {}, "param_groups": []}}
    path = save(tmp_path / "prematch_g_02500000.pt", upstream.state_dict(), **others)
    ours = compare(path, upstream, 12)
    assert ours.config == GeneratorConfig(feature_dim=1024)
    assert ours.num_parameters() == 16_523_393
    assert sum(parameter.numel() for parameter in ours.parameters()) == 16_523_393
    assert ours.trained_on == {}
    assert not ours.training


@pytest.mark.parametrize("norm", ["old", "new", "removed"])
@pytest.mark.parametrize(
    ("sizes", "rate"),
    [
        ({}, 16_000),
        ({"kernels": (3,), "factors": (10, 8, 4)}, 16_000),
        ({"kernels": (5, 9), "factors": (10, 8, 6, 2), "feature_dim": 3}, 48_000),
    ],
)
def test_sizes_are_read_from_the_weights(
    tmp_path: Path, norm: str, sizes: dict[str, Any], rate: int
) -> None:
    upstream = make_upstream(**{**SMALL, **sizes})
    if norm == "removed":
        upstream.remove_weight_norm()
    weights = upstream.state_dict()
    path = save(tmp_path / "g_1.pt", renamed(weights) if norm == "new" else weights)
    config = compare(path, upstream, 9).config
    assert config.sample_rate == rate
    assert config.hop_length == rate // 50
    assert config.upsample_factors == sizes.get("factors", (10, 8, 2, 2))
    assert config.resblock_kernels == sizes.get("kernels", (3, 7, 11))


def test_a_loaded_generator_is_saved_and_trained_on(tmp_path: Path) -> None:
    upstream = make_upstream(**SMALL)
    loaded = compare(save(tmp_path / "g.pt", upstream.state_dict()), upstream, 5)
    loaded.save_pretrained(tmp_path / "saved", model="wavlm", layer=6)
    again = Generator.from_pretrained(tmp_path / "saved")
    assert again.trained_on == {"model": "wavlm", "layer": 6}
    features, target = torch.randn(1, 5, 6), torch.zeros(1, 1, 1600)
    expected = loaded(features).detach()
    assert torch.equal(again(features), expected)
    tuned = again.add_weight_norm().train()
    assert tuned.state_dict().keys() == Generator(loaded.config).state_dict().keys()
    assert tuned.num_parameters() == loaded.num_parameters()
    torch.testing.assert_close(tuned(features), expected, atol=1e-5, rtol=0)
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (tuned(features) - target).square().mean().backward()
        assert all(parameter.grad is not None for parameter in tuned.parameters())
        optimizer.step()
    made = tuned(features).detach()
    assert made.square().mean() < 0.9 * expected.square().mean()
    tuned.save_pretrained(tmp_path / "tuned")
    found = Generator.from_pretrained(tmp_path / "tuned")(features)
    torch.testing.assert_close(found, made, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mpd.conv.bias": torch.zeros(2)}, r"g\.pt: the weights do not fit: unknown mpd\.conv\.b"),
        ({"lin_pre.weight": None}, r"missing lin_pre\.weight"),
        ({"ups.1.weight_g": None}, r"unknown ups\.1\.weight_v; missing ups\.1\.weight"),
        ({"ups.2.weight_v": None, "ups.2.weight_g": None}, r"missing ups\.2\.weight"),
        ({"resblocks.11.convs2.0.bias": None}, r"missing resblocks\.11\.convs2\.0\.bias"),
        ({"resblocks.4.convs1.1.bias": torch.zeros(7)}, r"4\.convs1\.1\.bias is \(7,\), not \(8,"),
        ({"conv_post.weight_v": torch.ones(1, 2, 5)}, r"conv_post\.weight is \(1, 2, 5\), not \(1"),
        ({"ups.0.weight_g": torch.ones(1, 16, 1)}, r"unknown ups\.0\.weight_g, ups\.0\.weight_v"),
        ({7: torch.zeros(2)}, r"g\.pt: weights that have no names"),
        ({"lin_pre.bias": torch.full((8,), torch.nan)}, r"lin_pre\.bias holds other than finite"),
        ({"lin_pre.bias": torch.zeros(8, dtype=torch.int64)}, r"lin_pre\.bias holds other than"),
        ({"ups.0.weight_g": torch.ones(32, 1, 1, dtype=torch.int64)}, r"unknown ups\.0\.weight_g"),
        ({"lin_pre.bias": "text"}, r"lin_pre\.bias is no tensor"),
        ({"resblocks.0.convs1.0.weight_v": torch.ones(16, 16, 4)}, r"g\.pt: .*odd kernels"),
        # Half a kernel is no factor of a rate, or none at all.
        ({"ups.0.weight_v": torch.ones(32, 16, 18)}, r"g\.pt: .*larger by an even number"),
        ({"ups.0.weight_v": torch.ones(32, 16, 12)}, r"g\.pt: .*sample_rate is 9600; allowed are"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    weights = {**make_upstream(**SMALL).state_dict(), **change}
    path = save(tmp_path / "g.pt", {k: v for k, v in weights.items() if v is not None})
    with pytest.raises(VocoderError, match=named):
        Generator.from_pretrained(path)


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    with pytest.raises(VocoderError, match=r"g\.pt: not a readable vocoder"):
        Generator.from_pretrained(path)
    for content in (b"", b"no checkpoint", b"hello", pickle.dumps({"generator": Path}, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(VocoderError, match=r"g\.pt: not a readable checkpoint"):
            Generator.from_pretrained(path)
    torch.save({"generator": make_upstream(**SMALL).state_dict()}, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], _flipped(whole, len(whole) // 2)):
        path.write_bytes(damaged)
        with pytest.raises(VocoderError, match=r"g\.pt: not a readable checkpoint"):
            Generator.from_pretrained(path)
    for other in ([1], {"mpd": {}}, {"generator": torch.zeros(2)}):
        torch.save(other, path)
        with pytest.raises(VocoderError, match="has a key generator"):
            Generator.from_pretrained(path)

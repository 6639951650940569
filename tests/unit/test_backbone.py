from pathlib import Path

import pytest
import torch
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from etaflow.models import ModelError
from etaflow.speaker.backbone import Backbone
from etaflow.ssl import SSLEncoder, frames
from tests.conftest import small_model
from tests.unit.test_speaker_networks import noise

LENGTHS = [12_345, 400, 8_000, 16_001, 8_001]


def upstream(folder: Path, wave: torch.Tensor, layer: int, normalize: bool) -> torch.Tensor:
    """Hidden state of the whole model of transformers, for one waveform."""
    model = AutoModel.from_pretrained(folder).eval()
    prepare = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    values = prepare(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        return model(values, output_hidden_states=True).hidden_states[layer][0]


@pytest.mark.parametrize("normalize", [False, True])
def test_frames_are_those_of_transformers_alone_and_in_company(
    ssl_model: Path, normalize: bool
) -> None:
    waves = [0.3 + wave for wave in noise(*LENGTHS)]
    backbone = Backbone.from_model(ssl_model, normalize, layer=3).eval()
    with torch.no_grad():
        found, counts = backbone(waves)
        turned, _ = backbone(waves[::-1])
    assert counts.tolist() == [backbone.grid.count(n) for n in LENGTHS]
    for wave, row, other, count in zip(waves, found, turned.flip(0), counts, strict=True):
        expected = upstream(ssl_model, wave, 3, normalize)
        assert len(expected) == count
        for each in (row, other):
            error = (each[:count] - expected).norm() / expected.norm()
            assert error < 1e-5
            assert not each[count:].any()


def test_all_hidden_states_are_there_to_combine(ssl_model: Path) -> None:
    (wave,) = noise(8_000)
    backbone = Backbone.from_model(ssl_model, False).eval()
    found: list[torch.Tensor] = []
    with torch.no_grad():
        total, _ = backbone([wave], lambda states: found.extend(states) or sum(states))
    assert len(found) == backbone.depth + 1 == 5
    for layer, state in enumerate(found):
        torch.testing.assert_close(
            state[0], upstream(ssl_model, wave, layer, False), atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(total, torch.stack(found).sum(0))


def test_a_final_norm_comes_after_the_last_block_only(ssl_model: Path) -> None:
    (wave,) = noise(8_000)
    backbone = Backbone.from_model(ssl_model, False, final_norm=True).eval()
    with torch.no_grad():
        expected = AutoModel.from_pretrained(ssl_model).eval()(wave[None]).last_hidden_state
        torch.testing.assert_close(backbone([wave])[0], expected, atol=1e-5, rtol=1e-4)


def test_a_long_waveform_is_cut_as_elsewhere(
    ssl_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "CHUNK_FRAMES", 40)
    monkeypatch.setattr(frames, "CONTEXT_FRAMES", 10)
    waves = noise(30_000, 5_000, 26_001)
    expected = SSLEncoder.from_pretrained(ssl_model, 2, normalize=True).encode(
        [wave.numpy() for wave in waves]
    )
    with torch.no_grad():
        found, counts = Backbone.from_model(ssl_model, True, layer=2).eval()(waves)
    for row, count, exact in zip(found, counts, expected, strict=True):
        error = (row[:count] - exact).norm() / exact.norm()
        assert error < 1e-5


def test_it_is_made_again_from_its_sizes(ssl_model: Path) -> None:
    backbone = Backbone.from_model(ssl_model, True, layer=2, final_norm=True).eval()
    again = Backbone.from_sizes(backbone.sizes()).eval()
    again.load_state_dict(backbone.state_dict())
    assert again.sizes() == backbone.sizes()
    assert len(again.layers) == len(backbone.layers) == 2 + 2
    with torch.no_grad():
        assert torch.equal(again(noise(8_000))[0], backbone(noise(8_000))[0])


def test_each_weight_is_in_one_layer_and_gets_a_gradient(ssl_model: Path) -> None:
    backbone = Backbone.from_model(ssl_model, False, layer=2).train()
    backbone(noise(8_000, 6_000))[0].square().sum().backward()
    in_layers = [id(p) for layer in backbone.layers for p in layer.parameters()]
    assert sorted(in_layers) == sorted(id(p) for p in backbone.parameters())
    assert all(p.grad is not None for p in backbone.parameters())


def test_what_cannot_be_a_backbone_is_named(wavlm_tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wavlm-tiny has layers 1 to 4, asked for 5"):
        Backbone.from_model(wavlm_tiny, False, layer=5)
    folder = small_model(tmp_path / "m", "wavlm-large")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="wavlm-large: no configuration of a model in"):
        Backbone.from_model(folder, False)

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from etaflow.fetching import RANDOM_SSL
from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.networks import create_network, load_network, save_network
from tests.unit.test_speaker import relative_errors
from tests.unit.test_speaker_networks import noise

LENGTHS = [12_345, 5_200, 8_000, 16_001, 8_001]
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}


def sv_folder(folder: Path, normalize: bool = False, **changes: Any) -> Path:
    """A small network in the layout of microsoft/wavlm-base-sv."""
    head = {"tdnn_dim": [24, 24, 40], "tdnn_kernel": [5, 3, 1], "tdnn_dilation": [1, 2, 1]}
    sizes = RANDOM_SSL["wavlm-tiny"] | BASE | head | {"xvector_output_dim": 12} | changes
    torch.manual_seed(2)
    model = WavLMForXVector(WavLMConfig(**sizes))
    for name, parameter in model.named_parameters():
        if "layer_norm" in name or name == "layer_weights":
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    info = {"name": "sv", "source": "huggingface", "architecture": "wavlm-sv", "revision": "test"}
    (folder / "model.json").write_text(json.dumps(info | {"weights": "untrained", "path": "."}))
    return folder


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", [BASE, {"do_stable_layer_norm": True}])
def test_embeddings_are_those_of_transformers(
    layout: dict[str, Any], weighted: bool, normalize: bool, tmp_path: Path
) -> None:
    folder = sv_folder(tmp_path, normalize, use_weighted_layer_sum=weighted, **layout)
    plain = WavLMForXVector.from_pretrained(folder).eval()
    prepare = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    waves = [0.2 + wave.numpy() for wave in noise(*LENGTHS)]
    expected = []
    for wave in waves:
        values = prepare(wave, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            expected.append(plain(values).embeddings)
    ours = load_speaker_encoder(folder)
    assert ours.dim == 12
    for order in (slice(None), slice(None, None, -1)):
        found = ours.embed(waves[order])[order]
        assert relative_errors(found, torch.cat(expected).numpy()).max() < 1e-5


def test_a_waveform_needs_two_frames_above_the_last_layer(tmp_path: Path) -> None:
    encoder = load_speaker_encoder(sv_folder(tmp_path))
    shortest = 400 + 320 * (4 + 4 + 1)
    (wave,) = noise(shortest)
    assert encoder.embed([wave.numpy()]).shape == (1, 12)
    with pytest.raises(ValueError, match=f"{shortest - 1} samples; sv needs {shortest}"):
        encoder.embed([wave.numpy()[1:]])


def test_it_is_trained_further_and_saved(tmp_path: Path) -> None:
    folder = sv_folder(tmp_path / "in", use_weighted_layer_sum=True)
    network = create_network({"pretrained": "sv"}, folder).train()
    assert network.pretrained == len(network.layers) == 2 + 4 + 1 + 1 + 3 + 1
    network(noise(8_000, 9_000)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    (tmp_path / "out").mkdir()
    save_network(network, tmp_path / "out", name="mine", weights="untrained")
    with torch.no_grad():
        again = load_network(tmp_path / "out")[1](noise(8_000))
        assert torch.equal(again, network.eval()(noise(8_000)))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = sv_folder(tmp_path)
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["tdnn.1.kernel.bias"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"sv: 1 weight\(s\) missing .* is tdnn.1.kernel.bias"):
        load_network(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"sv: .*a preprocessor_config.json with do_normalize"):
        load_network(folder)
    with pytest.raises(ModelError, match="wavlm-sv is published only"):
        create_network({"kind": "wavlm-sv"})

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.network import SpeakerNetwork, embed
from etaflow.speaker.networks import create_network, load_network, save_network
from tests.unit.test_speaker import relative_errors, tdnn_folder

SETTINGS: dict[str, dict[str, Any]] = {
    "ecapa": {"kind": "ecapa", "channels": 16, "dim": 12},
    "xvector": {"kind": "xvector", "channels": 16, "dim": 12},
}
LENGTHS = [12_345, 8_000, 16_001, 8_001, 16_000]


def make(kind: str) -> SpeakerNetwork:
    torch.manual_seed(0)
    return create_network(SETTINGS[kind])


def noise(*lengths: int) -> list[torch.Tensor]:
    generator = np.random.default_rng(1)
    return [torch.from_numpy(generator.normal(0, 0.1, n).astype(np.float32)) for n in lengths]


@pytest.fixture(params=list(SETTINGS))
def network(request: pytest.FixtureRequest) -> SpeakerNetwork:
    return make(request.param)


def test_an_utterance_is_embedded_the_same_alone_and_in_company(network: SpeakerNetwork) -> None:
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    alone = np.concatenate([embed(network, [wave]) for wave in waves])
    assert alone.shape == (len(LENGTHS), network.dim) == (len(LENGTHS), 12)
    assert relative_errors(embed(network, waves), alone).max() < 1e-5
    assert relative_errors(embed(network, waves[::-1])[::-1], alone).max() < 1e-5


def test_a_tensor_of_waveforms_equals_a_list_of_them(network: SpeakerNetwork) -> None:
    waves = noise(8_000, 8_000)
    with torch.no_grad():
        torch.testing.assert_close(network(torch.stack(waves)), network(waves))


def test_gradients_pass_through_padding(network: SpeakerNetwork) -> None:
    # Each gradient of a batch is the sum of those of its utterances.
    waves = noise(*LENGTHS[:2])
    network(waves).square().sum().backward()
    weights = dict(network.named_parameters())
    together = {name: weight.grad for name, weight in weights.items()}
    network.zero_grad()
    for wave in waves:
        network([wave]).square().sum().backward()
    for name, weight in weights.items():
        # A softmax does not depend on the bias before it: rounding is all that there is.
        atol = 1e-6 + 1e-4 * float(weight.grad.abs().max())
        torch.testing.assert_close(together[name], weight.grad, rtol=1e-3, atol=atol)


def test_a_saved_network_is_the_same_network(network: SpeakerNetwork, tmp_path: Path) -> None:
    info = save_network(network, tmp_path, name="mine", weights="trained", updates=3)
    found, again = load_network(tmp_path)
    assert found == info
    assert (info.architecture, info.source, info.weights) == ("etaflow-encoder", "run", "trained")
    assert json.loads((tmp_path / "config.json").read_text())["updates"] == 3
    assert again.pretrained == len(again.layers)
    assert again.sizes() == network.sizes()
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    encoder = load_speaker_encoder(tmp_path)
    assert encoder.info.name == "mine"
    np.testing.assert_array_equal(encoder.embed(waves), embed(network, waves))


@pytest.mark.parametrize("kind", ["ecapa", "xvector"])
@pytest.mark.parametrize("trained", [0, 2])
def test_frozen_layers_stay_as_they_are(kind: str, trained: int, tmp_path: Path) -> None:
    save_network(make(kind), tmp_path, name="mine", weights="trained")
    network = load_network(tmp_path)[1]
    network.freeze(trained)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad]
        or [torch.nn.Parameter(torch.zeros(1))],
        lr=0.1,
    )
    embeddings = network(torch.stack(noise(8_000, 8_000, 8_000)))
    if trained:
        embeddings.square().sum().backward()
    optimizer.step()
    frozen = {
        id(v)
        for layer in network.layers[: len(network.layers) - trained]
        for v in (*layer.parameters(), *layer.buffers())
    }
    for key, value in network.state_dict(keep_vars=True).items():
        assert torch.equal(before[key], value) == (id(value) in frozen), key


def test_different_lengths_are_refused_in_training(network: SpeakerNetwork) -> None:
    with pytest.raises(ValueError, match="of different lengths in training"):
        network.train()(noise(8_000, 9_000))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_network(make("ecapa"), tmp_path, name="mine", weights="trained")
    good = load_file(tmp_path / "encoder.safetensors")
    bias = "network.fc.conv.bias"
    cases = {
        f"missing {bias}": {key: value for key, value in good.items() if key != bias},
        "unknown extra": good | {"extra": torch.zeros(1)},
        rf"{bias} is \(3,\), not \(12,\)": good | {bias: torch.zeros(3)},
        f"{bias} is not finite": good | {bias: torch.full((12,), torch.nan)},
    }
    for message, state in cases.items():
        save_file(state, tmp_path / "encoder.safetensors")
        with pytest.raises(ModelError, match=rf"mine: .*encoder.safetensors: {message}"):
            load_network(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"encoder.safetensors is damaged"):
        load_network(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(ModelError, match=r"encoder.safetensors is missing"):
        load_network(tmp_path)


@pytest.mark.parametrize("architecture", ["ecapa", "xvector"])
def test_a_published_encoder_can_be_trained_further(architecture: str, tmp_path: Path) -> None:
    folder = tdnn_folder(tmp_path / "m", architecture)
    network = create_network({"pretrained": architecture}, folder)
    assert network.pretrained == len(network.layers) == {"ecapa": 7, "xvector": 6}[architecture]
    assert not network.new_parameters()
    assert len(network.pretrained_parameters()) == len(list(network.parameters()))
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    expected = load_speaker_encoder(folder).embed(waves)
    np.testing.assert_array_equal(embed(network, waves), expected)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no speaker network of kind 'gru'; there are ecapa"):
        create_network({"kind": "gru"})
    with pytest.raises(ModelError, match="60 channels; it has to be a multiple of 8"):
        create_network({"kind": "ecapa", "channels": 60, "dim": 8})
    info = {"name": "r", "source": "package", "architecture": "resemblyzer", "revision": "1"}
    (tmp_path / "model.json").write_text(json.dumps(info | {"weights": "published", "path": "."}))
    with pytest.raises(ModelError, match=r"r: resemblyzer .* cannot be trained"):
        load_network(tmp_path)

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speechbrain.nnet import CNN

from etaflow.fetching import fetch_model
from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.network import SpeakerNetwork, embed
from etaflow.speaker.networks import create_network, load_network, save_network
from etaflow.ssl import SSLEncoder
from tests.unit.test_speaker import relative_errors, tdnn_folder
from tests.workflow_tools import load_config

SIZES = {"channels": 16, "dim": 12}
SETTINGS: dict[str, dict[str, Any]] = {
    "ecapa": {"kind": "ecapa"} | SIZES,
    "xvector": {"kind": "xvector"} | SIZES,
    "mean": {"kind": "mean", "model": "wavlm", "normalize": True, "layer": 2, "dim": 12},
    "weighted": {"kind": "weighted", "model": "wavlm", "normalize": True} | SIZES,
}
NORMED = ("ecapa", "xvector", "weighted")  # with batch norms
LENGTHS = [12_345, 8_000, 16_001, 8_001, 16_000]


def make(kind: str, model: Path | None = None) -> SpeakerNetwork:
    torch.manual_seed(0)
    return create_network(SETTINGS[kind], model)


def noise(*lengths: int) -> list[torch.Tensor]:
    generator = np.random.default_rng(1)
    return [torch.from_numpy(generator.normal(0, 0.1, n).astype(np.float32)) for n in lengths]


@pytest.fixture(params=list(SETTINGS))
def network(request: pytest.FixtureRequest, wavlm_tiny: Path) -> SpeakerNetwork:
    return make(request.param, wavlm_tiny)


def test_an_utterance_is_embedded_the_same_alone_and_in_company(network: SpeakerNetwork) -> None:
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    alone = np.concatenate([embed(network, [wave]) for wave in waves])
    assert alone.shape == (len(LENGTHS), network.dim) == (len(LENGTHS), 12)
    assert relative_errors(embed(network, waves), alone).max() < 1e-5
    assert relative_errors(embed(network, waves[::-1])[::-1], alone).max() < 1e-5


@pytest.mark.parametrize("kind", ["ecapa", "xvector"])
def test_convolutions_of_one_frame_do_not_pad(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = make(kind)
    padded, pad = [], CNN.F.pad

    def counting(values: torch.Tensor, pads: tuple[int, ...], *how: Any, **more: Any) -> Any:
        padded.append(pads)
        return pad(values, pads, *how, **more)

    monkeypatch.setattr(CNN.F, "pad", counting)
    with torch.no_grad():
        network(noise(8_000))
    assert len(padded) > 0
    assert all(max(pads) > 0 for pads in padded)


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
    ours, theirs = network.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    encoder = load_speaker_encoder(tmp_path)
    assert encoder.info.name == "mine"
    # Where weights lie in memory moves the last bit of products on some processors.
    np.testing.assert_allclose(encoder.embed(waves), embed(network, waves), atol=1e-6)


def test_a_trained_encoder_is_a_model_like_any_other(tmp_path: Path) -> None:
    run, fetched = tmp_path / "run", tmp_path / "models/mine"
    run.mkdir()
    network = make("ecapa")
    save_network(network, run, name="run", weights="trained")
    entry = {"source": "path", "architecture": "etaflow-encoder", "weights": "trained"}
    fetch_model("mine", entry | {"path": str(run)}, fetched)
    encoder = load_speaker_encoder(fetched)
    assert (encoder.info.name, encoder.info.weights) == ("mine", "trained")
    waves = [wave.numpy() for wave in noise(*LENGTHS)]
    np.testing.assert_array_equal(encoder.embed(waves), embed(network, waves))


@pytest.mark.parametrize("trained", [None, 0, 2])
@pytest.mark.parametrize("kind", list(SETTINGS))
def test_a_training_step_changes_all_but_frozen_layers(
    kind: str, trained: int | None, wavlm_tiny: Path, tmp_path: Path
) -> None:
    network = make(kind, wavlm_tiny)
    if kind in ("ecapa", "xvector"):  # trained further; the others have pretrained layers
        save_network(network, tmp_path, name="mine", weights="trained")
        network = create_network({"pretrained": "mine"}, tmp_path)
    count = network.pretrained
    assert 0 < count <= len(network.layers)
    network.freeze(trained)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    frozen_layers = network.layers[: count - (count if trained is None else trained)]
    frozen = {
        id(value) for layer in frozen_layers for value in (*layer.parameters(), *layer.buffers())
    }
    parameters = [*network.pretrained_parameters(), *network.new_parameters()]
    assert {id(p) for p in parameters} == {id(p) for p in network.parameters()} - frozen
    embeddings = network(torch.stack(noise(8_000, 8_000, 8_000)))
    if parameters:
        # Not squares: a batch norm keeps their sum.
        embeddings.pow(3).sum().backward()
        torch.optim.SGD(parameters, lr=0.1).step()
    for key, value in network.state_dict(keep_vars=True).items():
        if id(value) in frozen:
            assert torch.equal(before[key], value), key
            assert value.grad is None, key
        elif isinstance(value, torch.nn.Parameter):
            assert value.grad is not None, key
        else:
            assert not torch.equal(before[key], value), key


def test_the_hindi_preset_trains_the_upper_half_of_its_transformer(wavlm_tiny: Path) -> None:
    network: Any = make("weighted", wavlm_tiny)
    above = len(network.layers) - len(network.backbone.layers)
    (trained,) = {each["trained_layers"] for each in load_config("kathbath")["encoders"].values()}
    assert trained == above + 12 // 2  # of WavLM-Base's blocks


@pytest.mark.parametrize("kind", ["mean", "weighted"])
def test_a_frozen_backbone_gives_in_training_what_it_gives_after(
    kind: str, wavlm_tiny: Path
) -> None:
    network: Any = make(kind, wavlm_tiny)
    network.freeze(0)
    assert network.backbone.config.hidden_dropout > 0
    waves = noise(8_000, 8_000)
    expected, _ = network.eval().backbone(waves)
    found, _ = network.train().backbone(waves)
    assert torch.equal(found, expected)


def test_a_mean_without_a_linear_layer_has_no_new_weights(wavlm_tiny: Path) -> None:
    network = create_network(SETTINGS["mean"] | {"dim": None}, wavlm_tiny)
    assert network.dim == 128
    assert not network.new_parameters()
    assert network.pretrained == len(network.layers) == 2 + 2
    waves = noise(8_000, 9_000)
    features = SSLEncoder.from_pretrained(wavlm_tiny, 2, normalize=True).encode(
        [wave.numpy() for wave in waves]
    )
    expected = torch.stack([frames.mean(0) for frames in features])
    with torch.no_grad():
        torch.testing.assert_close(network(waves), expected, atol=1e-5, rtol=1e-4)


def test_new_layers_stand_on_those_of_the_model(wavlm_tiny: Path) -> None:
    weighted = make("weighted", wavlm_tiny)
    assert weighted.pretrained == 2 + 4
    assert len(weighted.layers) == 2 + 4 + 1 + 1 + 3 + 1 + 1 + 1
    assert make("mean", wavlm_tiny).pretrained == 2 + 2


@pytest.mark.parametrize("kind", NORMED)
def test_batch_norms_are_not_trained_on_padding(kind: str, wavlm_tiny: Path) -> None:
    with pytest.raises(ValueError, match="of different lengths in training"):
        make(kind, wavlm_tiny).train()(noise(8_000, 9_000))


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
    for kind in ("mean", "weighted"):
        with pytest.raises(ModelError, match="the folder of the model wavlm is not given"):
            create_network(SETTINGS[kind])
    with pytest.raises(ModelError, match="60 channels; it has to be a multiple of 8"):
        create_network({"kind": "ecapa", "channels": 60, "dim": 8})
    info = {"name": "r", "source": "package", "architecture": "resemblyzer", "revision": "1"}
    (tmp_path / "model.json").write_text(json.dumps(info | {"weights": "published", "path": "."}))
    with pytest.raises(ModelError, match=r"r: resemblyzer .* cannot be trained"):
        load_network(tmp_path)

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.networks import load_network, save_network
from tests.unit.test_speaker import relative_errors
from tests.unit.test_speaker_networks import noise
from tests.upstream_unispeech import SelfSupervised, UniSpeechEncoder, random_encoder

LENGTHS = [12_345, 720, 8_000, 16_001, 8_001]
MODELS = [(True, True), (True, False), (False, True), (False, False)]
NAMES = ["wavlm-large", "wavlm-base", "hubert-large", "hubert-base"]


def published(folder: Path, encoder: UniSpeechEncoder, **changes: Any) -> Path:
    """A folder with the encoder in the format of UniSpeech's checkpoints."""
    folder.mkdir(exist_ok=True)
    state = {k: v for k, v in (encoder.state_dict() | changes).items() if v is not None}
    torch.save({"model": state, "best_valid_eer": 0.5}, folder / "wavlm_large_finetune.pth")
    info = {"name": "uni", "source": "path", "architecture": "unispeech", "revision": "test"}
    (folder / "model.json").write_text(json.dumps(info | {"weights": "untrained", "path": "."}))
    return folder


@pytest.fixture(params=MODELS, ids=NAMES)
def encoder(request: pytest.FixtureRequest) -> UniSpeechEncoder:
    return random_encoder(*request.param)


def test_a_checkpoint_gives_upstreams_embeddings(encoder: UniSpeechEncoder, tmp_path: Path) -> None:
    ours = load_speaker_encoder(published(tmp_path, encoder))
    waves = noise(*LENGTHS)
    with torch.no_grad():
        expected = torch.stack([encoder(wave) for wave in waves]).numpy()
    for order in (slice(None), slice(None, None, -1)):
        found = ours.embed([wave.numpy() for wave in waves][order])[order]
        assert found.shape == (len(LENGTHS), ours.dim) == (len(LENGTHS), 12)
        assert relative_errors(found, expected).max() < 1e-5


def test_a_checkpoint_can_be_saved_as_ours(encoder: UniSpeechEncoder, tmp_path: Path) -> None:
    network = load_network(published(tmp_path / "in", encoder))[1]
    assert network.pretrained == len(network.layers)
    (tmp_path / "out").mkdir()
    save_network(network, tmp_path / "out", name="mine", weights="untrained")
    (wave,) = noise(9_000)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "out")[1]([wave]), network([wave]))


def test_the_reference_has_as_many_weights_as_wavlm_large() -> None:
    assert len(SelfSupervised(wavlm=True, large=True, depth=24).state_dict()) == 488


PREFIX = "feature_extract.model."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear.bias": None}, "missing linear.bias"),
        ({"linear.weight": None}, "linear.weight is missing; it is no UniSpeech encoder"),
        ({"extra": torch.zeros(1)}, "unknown extra"),
        ({f"{PREFIX}quantizer.vars": torch.zeros(1)}, f"unknown {PREFIX}quantizer.vars"),
        ({"bn.bias": torch.zeros(3)}, "pooling.bn.bias is (3,), not (96,)"),
        ({f"{PREFIX}encoder.layers.1.fc1.bias": None}, "missing backbone.model.encoder.layers.1."),
        ({"feature_weight": torch.zeros(3)}, "layer_sum.weight is (3,), not (4,)"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = published(tmp_path, random_encoder(True, True), **changes)
    with pytest.raises(ModelError, match=rf"uni: .*finetune.pth: {re.escape(message)}"):
        load_network(folder)


def test_there_has_to_be_one_file(tmp_path: Path) -> None:
    folder = published(tmp_path, random_encoder(False, False))
    (folder / "other.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"there is other.pt, wavlm_large_finetune.pth"):
        load_network(folder)
    for file in folder.glob("*.pt*"):
        file.unlink()
    with pytest.raises(ModelError, match="there is none"):
        load_network(folder)
    torch.save({"weights": {}}, folder / "a.pth")
    with pytest.raises(ModelError, match="has a key model"):
        load_network(folder)

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from etaflow.fetching import fetch_model
from etaflow.models import ModelError
from etaflow.speaker import load_speaker_encoder


def voices(seed: int = 0) -> list[np.ndarray]:
    """Vowel-like buzzes with noise, of several lengths, one of them under a window of 1.6 s."""
    generator = np.random.default_rng(seed)
    waves = []
    for pitch, seconds in ((110, 2.3), (220, 1.1), (160, 4.0), (130, 2.3)):
        time = np.arange(int(16_000 * seconds)) / 16_000
        buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
        waves.append((0.1 * buzz + generator.normal(0, 0.01, len(time))).astype(np.float32))
    return waves


@pytest.fixture(scope="module")
def resemblyzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resemblyzer") / "m"
    fetch_model("resemblyzer", {"source": "package", "architecture": "resemblyzer"}, folder)
    return folder


def test_resemblyzer_in_a_batch_equals_the_package_one_by_one(resemblyzer: Path) -> None:
    from resemblyzer import VoiceEncoder, preprocess_wav

    plain = VoiceEncoder("cpu", verbose=False)
    encoder = load_speaker_encoder(resemblyzer)
    for wave, vector in zip(voices(), encoder.embed(voices()), strict=True):
        expected = plain.embed_utterance(preprocess_wav(wave))
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_resemblyzer_embeds_what_holds_no_speech(resemblyzer: Path) -> None:
    faint = np.random.default_rng(0).normal(0, 1e-3, 16_000).astype(np.float32)
    assert np.isfinite(load_speaker_encoder(resemblyzer).embed([faint])).all()


def ecapa_folder(folder: Path) -> Path:
    """A narrow ECAPA in the layout of speechbrain/spkrec-ecapa-voxceleb."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    folder.mkdir()
    torch.manual_seed(0)
    network = ECAPA_TDNN(
        80, channels=[32] * 4 + [96], lin_neurons=24, attention_channels=16, se_channels=16
    )
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.1)
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    (folder / "hyperparams.yaml").write_text(
        f"""
pretrained_path: {folder}
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [32, 32, 32, 32, 96]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 16
    se_channels: 16
    lin_neurons: 24
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 24
    out_neurons: 3
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""
    )
    info = {
        "name": "ecapa",
        "source": "huggingface",
        "architecture": "ecapa",
        "revision": "test",
        "weights": "untrained",
        "path": ".",
    }
    (folder / "model.json").write_text(json.dumps(info))
    return folder


def test_ecapa_equals_speechbrains_own_loading(tmp_path: Path) -> None:
    from speechbrain.inference.speaker import EncoderClassifier

    folder = ecapa_folder(tmp_path / "ecapa")
    plain = EncoderClassifier.from_hparams(
        source=str(folder), savedir=str(tmp_path / "cache"), run_opts={"device": "cpu"}
    )
    vectors = load_speaker_encoder(folder).embed(voices())
    assert vectors.shape == (4, 24)
    for wave, vector in zip(voices(), vectors, strict=True):
        expected = plain.encode_batch(torch.from_numpy(wave)[None]).squeeze().numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_folder_of_another_architecture_is_refused(wavlm_tiny: Path) -> None:
    with pytest.raises(ModelError, match="'wavlm-tiny' is no speaker encoder"):
        load_speaker_encoder(wavlm_tiny)

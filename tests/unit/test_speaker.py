import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.fetching import fetch_model
from etaflow.models import ModelError
from etaflow.speaker import SpeakerEncoder, load_speaker_encoder
from tests.conftest import remove_placeholders


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


def test_resemblyzer_embeds_an_utterance_the_same_whatever_stands_beside_it(
    resemblyzer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_speaker_encoder(resemblyzer)
    alone = np.concatenate([encoder.embed([wave]) for wave in voices()])
    assert alone.shape == (4, encoder.dim)
    monkeypatch.setattr("etaflow.speaker.resemblyzer.BATCH", 3)  # utterances straddle batches
    assert relative_errors(encoder.embed(voices()[::-1])[::-1], alone).max() < 1e-5


def test_resemblyzer_embeds_what_holds_no_speech(resemblyzer: Path) -> None:
    faint = np.random.default_rng(0).normal(0, 1e-3, 16_000).astype(np.float32)
    assert np.isfinite(load_speaker_encoder(resemblyzer).embed([faint])).all()


HYPERPARAMS = """
pretrained_path: {folder}
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: {mels}
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.{network}
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
NARROW = {
    "ecapa": """ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [32, 32, 32, 32, 96]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 16
    se_channels: 16
    lin_neurons: 24""",
    "xvector": """Xvector.Xvector
    in_channels: 24
    activation: !name:torch.nn.LeakyReLU
    tdnn_blocks: 5
    tdnn_channels: [32, 32, 32, 32, 96]
    tdnn_kernel_sizes: [5, 3, 3, 1, 1]
    tdnn_dilations: [1, 2, 3, 1, 1]
    lin_neurons: 24""",
}


def tdnn_folder(folder: Path, architecture: str) -> Path:
    """A narrow network in the layout of speechbrain/spkrec-ecapa-voxceleb or -xvect-voxceleb."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.lobes.models.Xvector import Xvector

    folder.mkdir()
    torch.manual_seed(0)
    widths = [32] * 4 + [96]
    network = (
        ECAPA_TDNN(80, channels=widths, lin_neurons=24, attention_channels=16, se_channels=16)
        if architecture == "ecapa"
        else Xvector(tdnn_channels=widths, lin_neurons=24, in_channels=24)
    )
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.1)
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    mels = 80 if architecture == "ecapa" else 24
    (folder / "hyperparams.yaml").write_text(
        HYPERPARAMS.format(folder=folder, mels=mels, network=NARROW[architecture])
    )
    info = {
        "name": architecture,
        "source": "huggingface",
        "architecture": architecture,
        "revision": "test",
        "weights": "untrained",
        "path": ".",
    }
    (folder / "model.json").write_text(json.dumps(info))
    return folder


Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


@pytest.fixture(scope="module", params=["ecapa", "xvector"])
def tdnn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SpeakerEncoder, Embed]:
    """Ours, and SpeechBrain's own loading and embedding of one waveform at a time."""
    from speechbrain.inference.speaker import EncoderClassifier

    place = tmp_path_factory.mktemp(request.param)
    folder = tdnn_folder(place / "model", request.param)
    plain = EncoderClassifier.from_hparams(
        source=str(folder), savedir=str(place / "cache"), run_opts={"device": "cpu"}
    )
    remove_placeholders()
    if request.param == "xvector":
        pooling = plain.mods.embedding_model.blocks[-2]
        pooling._get_gauss_noise = lambda size, device: torch.zeros(size)

    def alone(waveforms: Sequence[np.ndarray]) -> np.ndarray:
        rows = [plain.encode_batch(torch.from_numpy(wave)[None]) for wave in waveforms]
        return torch.cat(rows).squeeze(1).numpy()

    return load_speaker_encoder(folder), alone


def hard_waveforms(lengths: Sequence[int]) -> list[np.ndarray]:
    """Noise 100 dB under a click on the last sample.

    The click is loudest in the frame after the last, which a shorter waveform has not.
    """
    waves = []
    for seed, length in enumerate(lengths):
        noise = np.random.default_rng(seed).normal(0, 1e-5, length)
        noise[: length // 2] *= 100
        noise[-1] = 1
        waves.append(noise.astype(np.float32))
    return waves


def relative_errors(vectors: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(
    "lengths",
    [
        [16_000, 16_001, 15_999, 16_159, 16_160, 16_000],
        [160 * n for n in (4, 5, 6, 7, 8, 9, 10, 11, 12, 100)],
        [100_000, 640, 641, 799, 801, 99_999],
        [48_000 + 37 * n for n in range(12)],  # more than one batch
        [640],
    ],
)
def test_a_tdnn_in_a_batch_equals_speechbrain_one_by_one(
    tdnn: tuple[SpeakerEncoder, Embed], lengths: list[int]
) -> None:
    encoder, alone = tdnn
    for waves in (hard_waveforms(lengths), [wave[::-1].copy() for wave in hard_waveforms(lengths)]):
        vectors = encoder.embed(waves)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(lengths), encoder.dim) == (len(lengths), 24)
        assert relative_errors(vectors, alone(waves)).max() < 1e-5


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(640, 30_000), min_size=1, max_size=6))
def test_a_tdnn_embeds_any_lengths_together(
    tdnn: tuple[SpeakerEncoder, Embed], lengths: list[int]
) -> None:
    encoder, alone = tdnn
    waves = hard_waveforms(lengths)
    assert relative_errors(encoder.embed(waves), alone(waves)).max() < 1e-5


def test_a_tdnn_on_voices_equals_speechbrain(tdnn: tuple[SpeakerEncoder, Embed]) -> None:
    encoder, alone = tdnn
    assert relative_errors(encoder.embed(voices()), alone(voices())).max() < 1e-5


def test_what_a_tdnn_cannot_embed_is_named(tdnn: tuple[SpeakerEncoder, Embed]) -> None:
    encoder, _ = tdnn
    name = encoder.info.name
    shortest = {"ecapa": 640, "xvector": 480}[name]
    good = hard_waveforms([2_000, 3_000])
    cut = good[1][: shortest - 1]
    with pytest.raises(ValueError, match=rf"1 of 3 has {shortest - 1} .* {name} needs {shortest}"):
        encoder.embed([good[0], cut, good[1]])
    assert encoder.embed([good[1][:shortest]]).shape == (1, 24)
    with pytest.raises(ValueError, match="embedding of waveform 2 of 3 is not finite"):
        encoder.embed([*good, np.full(2_500, np.nan, np.float32)])


def test_an_utterance_has_one_x_vector(tmp_path: Path) -> None:
    # SpeechBrain adds noise to each.
    encoder = load_speaker_encoder(tdnn_folder(tmp_path / "x", "xvector"))
    first, again = encoder.embed(voices()), encoder.embed(voices())
    np.testing.assert_array_equal(first, again)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = tdnn_folder(tmp_path / "x", "xvector")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"architecture": "ecapa"}))
    with pytest.raises(ModelError, match=r"embedding_model.ckpt is no ecapa of SpeechBrain's"):
        load_speaker_encoder(folder)


def test_a_folder_of_another_architecture_is_refused(wavlm_tiny: Path) -> None:
    with pytest.raises(ModelError, match="'wavlm-tiny' is no speaker encoder"):
        load_speaker_encoder(wavlm_tiny)

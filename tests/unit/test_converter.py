from pathlib import Path

import numpy as np
import pytest
import torch

from etaflow import converter as module
from etaflow.audio import on_disk
from etaflow.converter import VoiceConverter
from etaflow.eta import EtaError, EtaModel
from etaflow.loudness import integrated_loudness
from etaflow.methods import ConversionError
from etaflow.speaker import load_speaker_encoder
from etaflow.ssl import SSLEncoder, frames


@pytest.fixture(scope="module")
def parts(wavlm_tiny: Path) -> tuple[SSLEncoder, torch.nn.Module, EtaModel]:
    from etaflow.vocoder import Generator, GeneratorConfig

    torch.manual_seed(0)
    facts = {"model": "wavlm-tiny", "revision": "seed-0", "layer": 2, "normalize": False}
    ssl = SSLEncoder.from_pretrained(wavlm_tiny, 2)
    vocoder = Generator(
        GeneratorConfig(
            feature_dim=128,
            hidden_dim=8,
            upsample_channels=16,
            resblock_kernels=(3,),
            resblock_dilations=((1, 3),),
        ),
        trained_on=facts,
    ).eval()
    generator = np.random.default_rng(0)
    eta = EtaModel(
        generator.normal(size=(4, 128)),
        generator.normal(size=128),
        generator.normal(size=128),
        None,
        {**facts, "encoder": "resemblyzer"},
    )
    return ssl, vocoder, eta


@pytest.fixture
def converter(parts: tuple) -> VoiceConverter:
    return VoiceConverter(*parts)


def noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [800, 1_600, 3_201, 16_000, 16_319, 16_320, 16_321])
def test_a_conversion_is_as_long_as_its_source(converter: VoiceConverter, samples: int) -> None:
    for method in ("copy", "knn", "mkl+knn")[: 3 if samples > 3_000 else 2]:
        waveform = converter.convert(noise(samples, 0), [noise(8_000, 1)], method=method)
        assert waveform.shape == (samples,)
        assert waveform.dtype == np.float32


def test_the_last_frame_is_held_where_a_source_has_none(converter: VoiceConverter) -> None:
    features = converter.ssl.encode([noise(3_201, 0)])[0].numpy()
    assert len(features) == 9
    held = np.concatenate([features, features[-1:], features[-1:]])
    with torch.inference_mode():
        expected = converter.vocoder(torch.from_numpy(held)[None])[0, 0, :3_201].numpy()
    np.testing.assert_allclose(converter.vocode(features, 3_201), expected, atol=1e-4)


def test_what_cannot_be_converted_says_why(parts: tuple, converter: VoiceConverter) -> None:
    with pytest.raises(ConversionError, match="'mvc': there are copy, knn"):
        converter.convert(noise(8_000, 0), [noise(8_000, 1)], method="mvc")
    with pytest.raises(ConversionError, match="need a speaker encoder"):
        converter.convert(noise(8_000, 0), [noise(8_000, 1)], method="knn-eta")
    with pytest.raises(ConversionError, match="needs an Eta model"):
        VoiceConverter(parts[0], parts[1]).voice("knn-eta", [np.zeros((9, 128))])
    with pytest.raises(ValueError, match="4 neighbours asked of a pool of 2 frames"):
        converter.convert(noise(8_000, 0), [noise(960, 1)], topk=4)


def test_parts_for_other_features_are_refused(parts: tuple, wavlm_tiny: Path) -> None:
    other = SSLEncoder.from_pretrained(wavlm_tiny, 3)
    with pytest.raises(EtaError, match="fitted on layer 2, the features have 3"):
        VoiceConverter(other, parts[1], parts[2])
    with pytest.raises(ConversionError, match="trained on layer 2, the features have 3"):
        VoiceConverter(other, parts[1])


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"no bundle: it has no config\.json"):
        VoiceConverter.from_pretrained(tmp_path)
    for damaged in (b"[]", b"\xff", b"{", b'{"format": "etaflow-bundle/1"}'):
        (tmp_path / "config.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=tmp_path.name):
            VoiceConverter.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(ConversionError, match="format 'other', expected etaflow-bundle/1"):
        VoiceConverter.from_pretrained(tmp_path)


def test_conversions_are_as_loud_as_each_other_and_copies_as_they_are(
    converter: VoiceConverter,
) -> None:
    source, reference = noise(32_000, 0), noise(32_000, 1)
    converted = converter.convert(source, [reference])
    assert integrated_loudness(converted, 16_000) == pytest.approx(-16, abs=0.01)
    copied = np.concatenate(list(converter.stream(source, [], method="copy")))
    np.testing.assert_array_equal(converter.convert(source, [], method="copy"), copied)


def test_a_long_source_in_pieces_is_the_whole(
    converter: VoiceConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, references = noise(50_001, 0), [noise(20_000, 1), noise(9_000, 2)]
    whole = converter.convert(source, references)
    monkeypatch.setattr(module, "CHUNK_FRAMES", 13)
    pieces = list(converter.stream(on_disk([source]), references))
    assert len(pieces) > 9
    joined = np.concatenate(pieces)
    np.testing.assert_allclose(joined * converter.gain("knn", joined), whole, atol=1e-4)


def test_a_source_of_many_chunks_is_mapped_by_one_map(
    converter: VoiceConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "CHUNK_FRAMES", 40)
    monkeypatch.setattr(frames, "CONTEXT_FRAMES", 5)
    source, references = noise(100_000, 0), [noise(20_000, 1)]
    features = converter.ssl.encode([source])[0]
    torch.testing.assert_close(torch.cat(list(converter.ssl.stream(source))), features)
    head = features[: 40 * module.FIT_CHUNKS]
    voice = converter.voice("mkl", converter.encode_references(references))
    expected = converter.vocode(voice.mapping(head)(features).numpy(), len(source))
    streamed = np.concatenate(list(converter.stream(source, references, method="mkl")))
    np.testing.assert_allclose(streamed, expected, atol=1e-4)


def test_the_embedding_of_a_long_recording_is_that_of_its_minutes(
    parts: tuple, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = load_speaker_encoder(bundle / "speaker")
    converter = VoiceConverter(*parts, speaker)
    monkeypatch.setattr(module, "EMBEDDED_SECONDS", 2)
    source = noise(16_000 * 5, 0)
    np.testing.assert_allclose(
        converter.embed([source[:48_000]])[0], speaker.embed([source[:48_000]])[0], atol=1e-6
    )
    first, second = speaker.embed([source[:32_000], source[32_000:]])
    np.testing.assert_allclose(converter.embed([source])[0], (first + second) / 2, atol=1e-2)


def test_a_vocoder_of_eta_features_is_given_those(parts: tuple) -> None:
    ssl, vocoder, eta = parts
    facts = {**vocoder.trained_on, "features": "eta", "eta_digest": eta.digest}
    reads_eta = type(vocoder)(vocoder.config, trained_on=facts).eval()
    converter = VoiceConverter(ssl, reads_eta, eta)
    other = EtaModel(eta.coefficients + 1, eta.bias, eta.mean_component, None, eta.config)
    with pytest.raises(ConversionError, match="eta features of another fit"):
        VoiceConverter(ssl, reads_eta, other)
    with pytest.raises(ConversionError, match="copy needs an Eta model, and there is none"):
        VoiceConverter(ssl, reads_eta).voice("copy")
    with pytest.raises(ConversionError, match="knn: the vocoder was trained on eta features"):
        converter.voice("knn", [np.zeros((9, 128), np.float32)])
    features = np.random.default_rng(0).normal(size=(9, 128)).astype(np.float32)
    speaker = np.random.default_rng(1).normal(size=4)
    mapping = converter.voice("copy").mapping(torch.from_numpy(features), speaker)
    np.testing.assert_allclose(
        mapping(torch.from_numpy(features)).numpy(),
        eta.remove_speaker(features, speaker),
        atol=1e-5,
    )

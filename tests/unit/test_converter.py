from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from etaflow.converter import ConversionError, VoiceConverter, sample_pairs
from etaflow.eta import EtaError, EtaModel
from etaflow.ssl import SSLEncoder


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
    for method in ("copy", "knn"):
        waveform = converter.convert(noise(samples, 0), [noise(8_000, 1)], method=method)
        assert waveform.shape == (samples,)
        assert waveform.dtype == np.float32


def test_the_last_frame_is_held_where_a_source_has_none(converter: VoiceConverter) -> None:
    features = converter.ssl.encode([noise(3_201, 0)])[0].numpy()
    assert len(features) == 9
    held = np.concatenate([features, features[-1:], features[-1:]])
    np.testing.assert_array_equal(
        converter.vocode(features, 3_201), converter.vocode(held, 3_520)[:3_201]
    )


def test_eta_on_both_sides_gives_the_targets_component_back(converter: VoiceConverter) -> None:
    generator = np.random.default_rng(1)
    eta = converter.eta
    assert eta is not None
    content = generator.normal(size=(6, 128)).astype(np.float32)
    speaker, target = generator.normal(size=(2, 4))
    source = content + eta.speaker_component(speaker)
    reference = content[::-1] + eta.speaker_component(target)
    # The same content in another voice: each frame finds its counterpart and only that.
    converted = converter.transform("knn-eta", source, [reference], speaker, target[None], topk=1)
    np.testing.assert_allclose(converted, reference[::-1], atol=1e-4)


def test_eta_source_is_matched_as_an_average_speaker(converter: VoiceConverter) -> None:
    generator = np.random.default_rng(2)
    eta = converter.eta
    assert eta is not None
    content = generator.normal(size=(6, 128)).astype(np.float32)
    speaker = generator.normal(size=4)
    pool = (content[::-1] + eta.mean_component).astype(np.float32)
    converted = converter.transform(
        "knn-eta-source", content + eta.speaker_component(speaker), [pool], speaker, topk=1
    )
    np.testing.assert_allclose(converted, pool[::-1], atol=1e-5)


def test_what_cannot_be_converted_says_why(parts: tuple, converter: VoiceConverter) -> None:
    with pytest.raises(ConversionError, match="'mvc' is none of copy, knn"):
        converter.convert(noise(8_000, 0), [noise(8_000, 1)], method="mvc")
    with pytest.raises(ConversionError, match="needs a speaker encoder"):
        converter.convert(noise(8_000, 0), [noise(8_000, 1)], method="knn-eta")
    with pytest.raises(ConversionError, match="needs an Eta model"):
        VoiceConverter(parts[0], parts[1]).transform("knn-eta", np.zeros((3, 128)))
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
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(ConversionError, match="format 'other', expected etaflow-bundle/1"):
        VoiceConverter.from_pretrained(tmp_path)


def manifest(speakers: dict[str, int]) -> pd.DataFrame:
    rows = [
        (f"{speaker}-{index}", speaker, "test")
        for speaker, count in speakers.items()
        for index in range(count)
    ]
    return pd.DataFrame(rows, columns=["utterance_id", "speaker_id", "split"])


def test_pairs_are_every_other_speaker_and_stay_when_one_joins() -> None:
    pairs = sample_pairs(manifest({"a": 5, "b": 2}), 3, seed=0)
    assert (pairs["source_speaker"] != pairs["target_speaker"]).all()
    assert pairs["source_speaker"].value_counts().to_dict() == {"a": 3, "b": 2}
    more = sample_pairs(manifest({"a": 5, "b": 2, "c": 4}), 3, seed=0)
    assert set(pairs["source_id"]) <= set(more["source_id"])
    assert not pairs.equals(sample_pairs(manifest({"a": 5, "b": 2}), 3, seed=1))
    with pytest.raises(ConversionError, match=r"1 speaker\(s\), conversion needs two"):
        sample_pairs(manifest({"a": 5}), 3, seed=0)

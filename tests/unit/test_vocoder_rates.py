"""Vocoders at other rates than 16 kHz: sizes, spectrograms, segments, and who can teach them."""

import math
from pathlib import Path
from subprocess import run
from typing import Any

import librosa
import numpy as np
import pandas as pd
import pytest
import torch

from etaflow.audio import write_audio
from etaflow.fetching import fetch_model
from etaflow.manifest import COLUMNS, write_manifest
from etaflow.store import FeatureMeta, FeatureStore, FeatureWriter
from etaflow.vocoder import Generator, GeneratorConfig, VocoderError, log_mel
from etaflow.vocoder.discriminator import DiscriminatorConfig
from etaflow.vocoder.segments import Segments, full_band
from etaflow.vocoder.task import VocoderTask
from etaflow.waveforms import Waveforms
from tests.vocoder_tools import CONFIG, python, training, with_checksums

FACTORS = {22_050: (9, 7, 7), 24_000: (10, 8, 6), 44_100: (14, 9, 7), 48_000: (10, 8, 12)}
SIZES: dict[str, Any] = {
    "hidden_dim": 4,
    "upsample_channels": 8,
    "resblock_kernels": (3,),
    "resblock_dilations": ((1, 3),),
}


def config_of(rate: int, dim: int = 3) -> GeneratorConfig:
    factors = FACTORS[rate]
    kernels = tuple(factor + 2 for factor in factors)
    return GeneratorConfig(
        dim, sample_rate=rate, upsample_factors=factors, upsample_kernels=kernels, **SIZES
    )


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[FeatureStore, dict[str, Path]]:
    """Utterances of 20 frames of 20 ms of 48, 44.1 and 16 kHz; samples count frames."""
    paths = {}
    for rate in (48_000, 44_100, 16_000):
        paths[f"at-{rate}"] = tmp_path / f"{rate}.wav"
        count = np.arange(rate * 2 // 5) // (rate // 50) / 40
        write_audio(paths[f"at-{rate}"], count.astype(np.float32), rate)
    meta = FeatureMeta("tiny", "0", 2, False, 16_000, 320)
    names = list(paths)
    with FeatureWriter(
        tmp_path / "0.h5", meta, names, ["s"] * 3, [6400] * 3, [20] * 3, 3
    ) as writer:
        for name in names:
            writer.write(name, np.repeat(np.arange(20, dtype=np.float32)[:, None], 3, axis=1))
    return FeatureStore([tmp_path / "0.h5"]), paths


@pytest.mark.parametrize("rate", FACTORS)
def test_a_frame_becomes_20_ms_at_every_rate(rate: int, tmp_path: Path) -> None:
    Generator(config_of(rate)).save_pretrained(tmp_path)
    generator = Generator.from_pretrained(tmp_path)
    assert generator.config.sample_rate == rate
    assert generator.synthesise(torch.randn(5, 3)).shape == (rate // 10,)


@pytest.mark.parametrize(
    ("rate", "named"),
    [(48_000, r"is 320, not 960 \(20 ms at 48000 Hz\)"), (32_000, "sample_rate is 32000; allowed")],
)
def test_factors_must_make_the_rate(rate: int, named: str) -> None:
    with pytest.raises(VocoderError, match=named):
        GeneratorConfig(feature_dim=3, sample_rate=rate)


@pytest.mark.parametrize(
    ("rate", "window", "bands"),
    [
        (16_000, 1024, 80),
        (22_050, 1412, 88),
        (24_000, 1536, 90),
        (44_100, 2822, 106),
        (48_000, 3072, 108),
    ],
)
def test_log_mel_is_librosas_at_every_rate(rate: int, window: int, bands: int) -> None:
    density = 80 / librosa.hz_to_mel(8000)
    assert bands == round(density * float(librosa.hz_to_mel(rate / 2)))
    waveform = np.random.default_rng(0).standard_normal(rate // 5 + 7).astype(np.float32) * 0.1
    hop = rate // 50
    expected = librosa.feature.melspectrogram(
        y=np.pad(waveform, ((window - hop) // 2, (window - hop + 1) // 2), mode="reflect"),
        sr=rate,
        n_fft=window,
        hop_length=hop,
        center=False,
        power=1.0,
        n_mels=bands,
        fmax=rate / 2,
    )
    mel = log_mel(torch.from_numpy(waveform)[None], rate)
    assert mel.shape == (1, bands, 10)
    assert mel.min() > math.log(1e-5)  # no band is empty
    np.testing.assert_allclose(mel[0].numpy(), np.log(expected), atol=2e-4)


@pytest.mark.parametrize("rate", FACTORS)
def test_segments_have_the_samples_of_their_frames(
    corpus: tuple[FeatureStore, dict[str, Path]], rate: int
) -> None:
    store, paths = corpus
    segments = Segments(store, Waveforms(with_checksums(paths), rate), ["at-48000"], 8)
    for seed in range(5):
        item = segments[0, (0, seed)]
        hop = rate // 50
        assert item["waveform"].shape == (8 * hop,)
        # In the middle of a frame, away from where resampling rings.
        middles = item["waveform"][hop // 2 :: hop].numpy()
        np.testing.assert_allclose(middles, item["features"][:, 0].numpy() / 40, atol=5e-3)


def test_a_task_synthesises_and_judges_at_its_own_rate(
    corpus: tuple[FeatureStore, dict[str, Path]],
) -> None:
    store, paths = corpus
    torch.manual_seed(0)
    generator = Generator(config_of(48_000))
    names, width = (["at-48000"], ["at-44100"]), DiscriminatorConfig(1 / 16, (2,), 0)
    with pytest.raises(VocoderError, match="waveforms at 16000 Hz for a generator at 48000"):
        VocoderTask(generator, width, store, Waveforms(with_checksums(paths)), *names)
    waveforms = Waveforms(with_checksums(paths), 48_000)
    task = VocoderTask(generator, width, store, waveforms, *names)
    with torch.no_grad():
        metrics, _ = task.validate(generator, torch.device("cpu"))
        made = generator(torch.from_numpy(store.read("at-44100"))[None])[:, 0]
    truth = torch.from_numpy(waveforms.read("at-44100"))[None]
    expected = (log_mel(made, 48_000) - log_mel(truth, 48_000)).abs().mean()
    assert metrics["mel_distance"] == pytest.approx(float(expected), rel=1e-4)


def test_recordings_below_the_rate_are_told_apart() -> None:
    rates = {"a": 48_000, "b": 16_000, "c": 24_000, "d": 22_050}
    assert full_band(rates, 24_000) == (["a", "c"], ["b", "d"])
    assert full_band(rates, 16_000) == (list("abcd"), [])
    with pytest.raises(VocoderError, match="none of 1 training utterances is recorded at 24000 Hz"):
        full_band({"d": 22_050}, 24_000)


@pytest.mark.slow
def test_a_training_leaves_narrow_recordings_out_and_names_them(
    corpus: tuple[FeatureStore, dict[str, Path]], tmp_path: Path
) -> None:
    _, paths = corpus
    rows = [
        [name, "s", "1", "train", str(path), 6400, name.split("-")[1], "", "0000", checksum]
        for name, (path, checksum) in with_checksums(paths).items()
    ]
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path / "manifest.tsv")
    entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    fetch_model("tiny", entry, tmp_path / "model")
    sizes = {"sample_rate": 24_000, "upsample_factors": FACTORS[24_000]}
    sizes |= {"upsample_kernels": [factor + 2 for factor in FACTORS[24_000]]}
    config = {**CONFIG, "generator": {**CONFIG["generator"], **sizes}, "segment_frames": 8}
    (tmp_path / "0.h5").rename(tmp_path / "0000.h5")
    command = python(*training(tmp_path, tmp_path, config))
    done = run(command, check=True, capture_output=True, text=True)
    assert "left out: 1 of 3 utterances" in done.stderr
    assert "24000 Hz (at-16000)" in done.stderr
    generator = Generator.from_pretrained(tmp_path / "vocoder")
    assert generator.synthesise(torch.zeros(2, 3)).shape == (960,)

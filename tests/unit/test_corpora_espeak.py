"""The corpus kind espeak: voices that mini has not, the same bytes on every run, texts."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import pytest
import torch
import yaml

from etaflow.audio import check_audio, read_audio
from etaflow.corpora import CorpusError, build_manifest, espeak, fetch, mini, recordings
from etaflow.corpora.espeak import MAX_SPEAKERS, ROUND, SPEEDS, draw_speaker
from etaflow.corpora.pseudowords import FREQUENT, LANGUAGES, english_words, sentences
from etaflow.corpora.synthesis import OCTAVES, equalise
from etaflow.fetching import fetch_model
from etaflow.pitch import track_pitch
from etaflow.speaker import load_speaker_encoder
from etaflow.store import unit_rows
from tests.unit.test_corpora_mini import contents

CONFIG: dict[str, Any] = {
    "kind": "espeak",
    "speakers": 3,
    "sentences": 2,
    "languages": ["en-gb", "pl"],
    "seed": 0,
    "split": {"by": "speaker", "test_fraction": 0.4},
    "shards": 2,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("espeak")
    fetch(CONFIG, root)
    return root


def test_bytes_do_not_depend_on_run_workers_or_number_of_speakers(
    corpus: Path, tmp_path: Path
) -> None:
    made = contents(corpus)
    fetch(CONFIG, tmp_path, workers=2)
    assert contents(tmp_path) == made
    fetch(CONFIG | {"speakers": 2}, tmp_path / "fewer")
    fewer = contents(tmp_path / "fewer")
    del fewer[espeak.synthesis.TABLE]
    assert len(fewer) == 4
    assert fewer.items() <= made.items()


def test_manifest(corpus: Path) -> None:
    manifest, rejected = build_manifest(CONFIG, corpus)
    assert rejected.empty
    assert list(manifest["utterance_id"]) == [
        f"{speaker}-{index:03d}"
        for speaker in ("en-gb-0001", "en-gb-0003", "pl-0002")
        for index in (0, 1)
    ]
    assert set(manifest["sample_rate"]) == {16_000}
    assert set(manifest["split"]) == {"train", "test"}
    polish = manifest["speaker_id"] == "pl-0002"
    assert set(manifest[polish]["text"]) == {""}
    words = set(english_words())
    for text in manifest[~polish]["text"]:
        assert words.issuperset(text.split())


def test_speakers_differ_from_each_other_and_from_those_of_mini() -> None:
    speakers = [draw_speaker(number, ["de", "fr", "en-us"], 0) for number in range(MAX_SPEAKERS)]
    assert len({(who.variant, who.pitch, who.rate) for who in speakers}) == MAX_SPEAKERS
    assert len({who.speaker_id for who in speakers}) == MAX_SPEAKERS
    assert [who.speaker_id for who in speakers[:4]] == [
        "de-0001",
        "fr-0002",
        "en-us-0003",
        "de-0004",
    ]
    assert Counter(who.variant for who in speakers[: len(ROUND)]) == Counter(ROUND)
    assert not set(ROUND) & {who.variant for who in mini.SPEAKERS}
    assert draw_speaker(7, ["de"], 1) != draw_speaker(7, ["de"], 0)
    assert {who.speed for who in speakers[: len(ROUND)]} == {1.0}
    assert {who.speed for who in speakers[len(ROUND) :]} == set(SPEEDS)
    assert {who.gains for who in speakers[: len(ROUND)]} == {()}
    gains = np.array([who.gains for who in speakers[len(ROUND) :]])
    assert len(np.unique(gains, axis=0)) == len(gains)
    assert abs(gains.mean(axis=0)).max() < 1
    # Of a uniform tilt, three octaves from the middle, and of the unevenness.
    assert gains[:, 0].std() == pytest.approx(np.hypot(9 / np.sqrt(3), 4), rel=0.1)
    assert gains[:, 3].std() == pytest.approx(4, rel=0.1)


def test_a_recording_played_faster_has_higher_formants_and_pitch_and_lasts_as_long(
    tmp_path: Path,
) -> None:
    who = replace(draw_speaker(0, ["en-us"], 0), pitch_range=0)
    lengths, pitches, centroids = [], [], []
    for speed in (1.0, 1.2):
        plan = espeak._plan(replace(who, speed=speed), 1, 0)
        espeak.synthesis.synthesise(tmp_path / str(speed), {who.speaker_id: plan})
        (path,) = (tmp_path / str(speed)).glob("*/*.wav")
        waveform = read_audio(path)
        frames = len(waveform) // 320
        pitch, voiced = track_pitch(torch.from_numpy(waveform)[None], frames, 16_000)
        spectrum = np.abs(np.fft.rfft(waveform))
        centre = (spectrum * np.arange(len(spectrum))).sum() / spectrum.sum()
        lengths.append(len(waveform))
        pitches.append(float(pitch[voiced].median()))
        centroids.append(centre / len(waveform))
    assert lengths[1] / lengths[0] == pytest.approx(1, abs=0.1)
    assert pitches[1] / pitches[0] == pytest.approx(1.2, abs=0.05)
    assert centroids[1] / centroids[0] > 1.05


@pytest.mark.parametrize("octave", range(7))
def test_an_equaliser_raises_a_tone_of_its_octave_by_its_gain(octave: int) -> None:
    times = np.arange(16_000) / 16_000
    frequencies = OCTAVES[[octave, (octave + 3) % 7]] - (0.5, 0.5)  # a half less than Nyquist's
    tones = 0.1 * np.sin(2 * np.pi * frequencies[:, None] * times)
    gains = [0.0] * 7
    gains[octave] = 6.0
    shaped = equalise(tones.sum(axis=0).astype(np.float32), gains)
    assert shaped.dtype == np.float32
    assert np.sqrt(np.mean(shaped**2)) == pytest.approx(0.1, rel=1e-3)
    raised, kept = abs(tones @ shaped)
    assert 20 * np.log10(raised / kept) == pytest.approx(6, abs=0.1)


def test_an_equaliser_leaves_flat_what_is_flat_and_stays_within_full_scale() -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 4001).astype(np.float32)
    np.testing.assert_allclose(equalise(noise, [3.0] * 7), noise, atol=1e-5)
    loud = equalise(noise, [20.0] + [-20.0] * 6)
    assert abs(loud).max() == pytest.approx(1.0)
    assert not equalise(np.zeros(100, np.float32), [9.0] * 7).any()


def test_every_variant_is_one_of_espeak_and_every_language_speaks(tmp_path: Path) -> None:
    """eSpeak NG takes a variant that it does not have for the plain voice, and says nothing."""
    variants = Path(espeakng_loader.get_data_path(), "voices", "!v")
    assert set(ROUND) <= {path.name for path in variants.iterdir()}
    languages = list(LANGUAGES)
    speakers = [draw_speaker(number, languages, 0) for number in range(len(languages))]
    plan = [utterance for speaker in speakers for utterance in espeak._plan(speaker, 1, 0)]
    espeak.synthesis.synthesise(tmp_path, {"all": plan})  # in one process
    paths = [tmp_path / "all" / utterance.recording.path.name for utterance in plan]
    assert len(set(paths)) == len(languages)
    for path in paths:
        assert 1.0 < check_audio(path).num_samples / 16_000 < 12.0, path


@pytest.mark.slow
def test_an_encoder_takes_no_speaker_for_one_of_mini(tmp_path: Path) -> None:
    languages = ["en-us", "en-gb", "de", "fr", "es", "it", "nl", "pl", "pt", "sv"]
    config = CONFIG | {"speakers": 60, "sentences": 3, "languages": languages}
    fetch_model(
        "resemblyzer", {"source": "package", "architecture": "resemblyzer"}, tmp_path / "model"
    )
    encoder = load_speaker_encoder(tmp_path / "model")
    means = []
    for entry in (config, config | {"kind": "mini"}):
        fetch(entry, tmp_path / entry["kind"])
        listing = recordings(entry, tmp_path / entry["kind"])
        vectors = encoder.embed([read_audio(item.path) for item in listing])
        means.append(unit_rows(vectors.reshape(60, 3, -1).mean(axis=1)))
    assert (means[0] @ means[1].T).max() < 0.95


def test_texts_have_4_to_12_words_of_their_language() -> None:
    assert len(english_words()) == FREQUENT
    assert english_words()[:3] == ("the", "to", "and")
    for language in ("en-us", "sw"):
        said = sentences(language, 200, random.Random(0))
        assert {len(text.split()) for text in said} == set(range(4, 13))
        assert sentences(language, 200, random.Random(0)) == said
    swahili = LANGUAGES["sw"]
    letters = set(swahili.onsets + swahili.vowels) | {" "}
    assert set("".join(said)) <= letters


def test_the_schema_names_the_languages_and_the_most_speakers() -> None:
    schema = yaml.safe_load(Path("config/schema.yaml").read_text(encoding="utf-8"))
    entries = schema["properties"]["corpora"]["additionalProperties"]["oneOf"]
    (keys,) = (e["properties"] for e in entries if e["properties"]["kind"]["const"] == "espeak")
    assert keys["languages"]["items"]["enum"] == list(LANGUAGES)
    assert keys["speakers"]["maximum"] == MAX_SPEAKERS


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="languages tlh: those of kind espeak are en-us, "):
        fetch(CONFIG | {"languages": ["de", "tlh"]}, tmp_path)
    with pytest.raises(CorpusError, match="no languages: those of kind espeak are en-us, "):
        fetch(CONFIG | {"languages": []}, tmp_path)
    with pytest.raises(CorpusError, match="1596 speakers: a corpus of kind espeak has 1 to 1595"):
        fetch(CONFIG | {"speakers": 1596}, tmp_path)

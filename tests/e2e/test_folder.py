"""A folder of recordings: bad files are named, links are followed."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from etaflow.manifest import read_manifest, read_table
from tests.workflow_tools import changed, load_config, planned, snakemake

pytestmark = pytest.mark.slow


def voice(pitch: float, seconds: float, seed: int, rate: int) -> np.ndarray:
    """A buzz with a moving formant, enough for encoders that were never told what speech is."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(rate * seconds)) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 15))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time + generator.uniform(0, 6))
    return 0.1 * buzz * envelope + generator.normal(0, 0.003, len(time))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers at four rates, one of them in stereo, and one file of every bad kind."""
    place = tmp_path_factory.mktemp("folder")
    speech = place / "speech"
    for speaker, (pitch, rate) in enumerate(
        [(110, 8_000), (150, 16_000), (190, 44_100), (230, 96_000)]
    ):
        folder = speech / "all" / f"s{speaker}" / "c0"
        folder.mkdir(parents=True)
        for index in range(4):
            samples = voice(pitch + 3 * index, 1.2 + 0.2 * index, index, rate)
            stereo = np.stack([samples, samples], axis=1) if speaker == 2 else samples
            soundfile.write(folder / f"s{speaker}-{index}.wav", stereo, rate)
    bad = speech / "all" / "s0" / "c0"
    (bad / "empty.wav").write_bytes(b"")
    (bad / "text.wav").write_text("not audio at all")
    whole = (bad / "s0-0.wav").read_bytes()
    (bad / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(bad / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(bad / "short.wav", voice(110, 0.05, 0, 16_000), 16_000)
    soundfile.write(bad / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(speech / "stray.wav", voice(110, 1, 0, 16_000), 16_000)
    return place


def folder_config(place: Path) -> dict[str, Any]:
    config = changed(load_config("folder"), "conversion", ...)
    config |= {"speech_dir": str(place / "speech"), "vocoder": {}}
    return changed(config, "eta.speech.pca", 3)


def test_bad_files_are_named_and_the_rest_is_fitted(place: Path) -> None:
    snakemake(place, folder_config(place))
    rejected = read_table(place / "results/folder/manifests/speech.rejected.tsv")
    reasons = {Path(row.path).name: row.reason for row in rejected.itertuples()}
    expected = {
        "empty.wav": "empty",
        "text.wav": "unreadable",
        "truncated.wav": "truncated",
        "silent.wav": "silent",
        "short.wav": "shorter than 0.1 s",
        "nan.wav": "NaN",
        "stray.wav": "does not match",
    }
    assert sorted(reasons) == sorted(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]
    table = read_manifest(place / "results/folder/manifests/speech.tsv")
    assert len(table) == 16
    assert sorted(table["sample_rate"].unique()) == [8_000, 16_000, 44_100, 96_000]
    assert (place / "results/folder/eta/speech/eta.safetensors").exists()
    assert planned(place, folder_config(place)) == {}


def test_a_linked_folder_is_watched_too(place: Path) -> None:
    config = folder_config(place)
    (place / "elsewhere/c0").mkdir(parents=True)
    soundfile.write(place / "elsewhere/c0/s4-0.wav", voice(130, 1, 4, 16_000), 16_000)
    (place / "speech/all/s4").symlink_to(place / "elsewhere")
    (place / "speech/all/dangling.wav").symlink_to(place / "nowhere.wav")
    for name in ("s4-1", "s4-2"):
        assert "build_manifest_speech" in planned(place, config)
        snakemake(place, config, "--", "manifests")
        assert "build_manifest_speech" not in planned(place, config)
        soundfile.write(place / f"elsewhere/c0/{name}.wav", voice(130, 1, 5, 16_000), 16_000)
    table = read_manifest(place / "results/folder/manifests/speech.tsv")
    assert list(table.loc[table["speaker_id"] == "s4", "utterance_id"]) == ["s4-0", "s4-1"]


def test_a_corpus_of_which_nothing_is_left_says_so(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "speech/all/s0/c0", tmp_path / "speech/all/s0/c0")
    for path in (tmp_path / "speech").rglob("*.wav"):
        path.write_bytes(b"")
    output = snakemake(tmp_path, folder_config(tmp_path), ok=False)
    assert "can be used" in output
    assert not (tmp_path / "results/folder/manifests/speech.tsv").exists()

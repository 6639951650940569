"""A folder of recordings: bad files are named, and a new one touches its speaker's shard only."""

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


def test_a_new_recording_touches_its_shard_only(place: Path) -> None:
    config = folder_config(place)
    origin = place / "speech/all/s1/c0/s1-0.wav"
    soundfile.write(origin.with_name("s1-9.wav"), voice(155, 1.5, 9, 16_000), 16_000)
    snakemake(place, config, "--", "manifests")
    jobs = planned(place, config)
    assert jobs["dump_features"] == 1
    assert jobs["embed_speakers"] == 1
    assert jobs["gather_embeddings"] == 1
    assert "build_manifest_speech" not in jobs
    snakemake(place, config)
    assert planned(place, config) == {}


def test_a_recording_that_changed_but_kept_its_length_is_seen(place: Path) -> None:
    config = folder_config(place)
    path = place / "speech/all/s3/c0/s3-1.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate)
    snakemake(place, config, "--", "manifests")
    jobs = planned(place, config)
    assert (jobs["dump_features"], jobs["embed_speakers"]) == (1, 1)
    snakemake(place, config)


def test_a_corrected_transcript_is_aligned_again_and_nothing_else(place: Path) -> None:
    config = folder_config(place)
    (place / "speech/all/s1/c0/s1-0.normalized.txt").write_text("Not what was said.")
    snakemake(place, config, "--", "manifests")
    jobs = planned(place, config)
    assert {"align_texts", "probe_speakers"} <= set(jobs)
    assert set(jobs) <= {"align_texts", "probe_speakers", "render_probe"}
    snakemake(place, config)
    table = read_manifest(place / "results/folder/manifests/speech.tsv").set_index("utterance_id")
    assert table.loc["s1-0", "text"] == "Not what was said."


def test_a_linked_folder_is_watched_too(place: Path) -> None:
    config = folder_config(place)
    (place / "elsewhere/c0").mkdir(parents=True)
    soundfile.write(place / "elsewhere/c0/s4-0.wav", voice(130, 1, 4, 16_000), 16_000)
    (place / "speech/all/s4").symlink_to(place / "elsewhere")
    (place / "speech/all/dangling.wav").symlink_to(place / "nowhere.wav")
    assert "build_manifest_speech" in planned(place, config)
    snakemake(place, config)
    soundfile.write(place / "elsewhere/c0/s4-1.wav", voice(130, 1, 5, 16_000), 16_000)
    assert "build_manifest_speech" in planned(place, config)
    snakemake(place, config)
    assert planned(place, config) == {}


def test_touched_recordings_run_nothing_after_the_manifest(place: Path) -> None:
    config = folder_config(place)
    for path in (place / "speech").rglob("*.wav"):
        path.touch()
    snakemake(place, config, "--", "manifests")
    assert planned(place, config) == {}


def test_a_corpus_of_which_nothing_is_left_says_so(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "speech/all/s0/c0", tmp_path / "speech/all/s0/c0")
    for path in (tmp_path / "speech").rglob("*.wav"):
        path.write_bytes(b"")
    output = snakemake(tmp_path, folder_config(tmp_path), ok=False)
    assert "can be used" in output
    assert not (tmp_path / "results/folder/manifests/speech.tsv").exists()

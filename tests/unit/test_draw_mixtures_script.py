"""scripts/draw_mixtures.py: mixtures of a corpus, and those of published tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner, Result

from etaflow.audio import file_checksum
from etaflow.manifest import write_manifest
from etaflow.separation.mixing import MetadataError, metadata_columns, read_metadata
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import draw_mixtures

SETTINGS = {
    "speakers": 2,
    "counts": {"train": 12, "validation": 3, "test": 4},
    "validation_speakers": 2,
    "seed": 3,
}
TRAIN, TEST = ["1", "2", "3", "4", "5", "007"], ["8", "9"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of 8 speakers in LibriSpeech's layout, as seen from the working directory."""
    monkeypatch.chdir(tmp_path)
    generator, rows = np.random.default_rng(0), []
    for split, speakers in (("train", TRAIN), ("test", TEST)):
        for speaker in speakers:
            for number in range(3):
                name = f"{speaker}-1-{number:04d}"
                path = Path("corpora/LibriSpeech", split, speaker, "1", f"{name}.flac")
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, generator.normal(0, 0.1, 16_000), 16_000)
                row = [name, speaker, "1", split, str(path), 16_000, 16_000, "", "0000"]
                rows.append([*row, file_checksum(path)])
    columns = "utterance_id speaker_id session_id split path num_samples sample_rate text shard"
    write_manifest(pd.DataFrame(rows, columns=[*columns.split(), "checksum"]), "m.tsv")
    return tmp_path


def run(part: str, *more: str, **changes: object) -> Result:
    given = ["--config", json.dumps(SETTINGS | changes), "--part", part, "--manifest", "m.tsv"]
    given += ["--output", f"{part}.csv", *more]
    return CliRunner().invoke(draw_mixtures.app, given)


def speakers(part: str) -> set[str]:
    table = read_metadata(f"{part}.csv")
    return set(table[["speaker_1_ID", "speaker_2_ID"]].to_numpy().ravel())


def test_parts_share_no_speaker(folder: Path) -> None:
    for part, count in SETTINGS["counts"].items():
        assert run(part).exit_code == 0
        assert len(read_metadata(f"{part}.csv")) == count
    assert speakers("test") == set(TEST)
    assert len(speakers("validation")) == 2
    assert speakers("train") == set(TRAIN) - speakers("validation")


def test_another_number_of_training_mixtures_leaves_the_others_as_they_were(folder: Path) -> None:
    run("validation")
    first = Path("validation.csv").read_bytes()
    run("validation", counts={"validation": 3, "train": 2})
    assert Path("validation.csv").read_bytes() == first


def test_noise_is_taken_of_the_parts_own_folder(folder: Path) -> None:
    for name in ("tr", "tt"):
        Path("noise", name).mkdir(parents=True)
        soundfile.write(
            f"noise/{name}/n.wav", np.random.default_rng(1).normal(0, 1, 20_000), 16_000
        )
    for part, place in (("train", "tr/n.wav"), ("test", "tt/n.wav")):
        assert run(part, "--noise", "noise").exit_code == 0
        assert set(read_metadata(f"{part}.csv")["noise_path"]) == {place}
    # There is no `cv`, and the folders of other parts do not serve.
    message = str(run("validation", "--noise", "noise").exception)
    assert message == "noise: no noise for validation beside that of other parts"
    Path("noise/n.wav").write_bytes(Path("noise/tr/n.wav").read_bytes())
    assert run("validation", "--noise", "noise").exit_code == 0
    assert set(read_metadata("validation.csv")["noise_path"]) == {"n.wav"}
    run("test")
    assert read_metadata("test.csv")["noise_path"].str.fullmatch(r"pink:\d+").all()


def published(name: str, rows: list[tuple[str, str]], speakers: int = 2) -> None:
    """A table as LibriMix publishes them, of files `split/speaker/chapter/name.flac`."""
    lines = []
    for files in rows:
        ids = "_".join(Path(file).stem for file in files)
        gains = [value for file in files for value in (file, 0.123456789012345678)]
        lines.append([ids, *gains, "tt/x.wav", 0.5])
    pd.DataFrame(lines, columns=metadata_columns(speakers)).to_csv(name, index=False)


ONE, TWO = "train/007/1/007-1-0000.flac", "train/2/1/2-1-0001.flac"


def test_published_rows_get_the_manifests_paths_and_speakers(folder: Path) -> None:
    published("a.csv", [(ONE, TWO)])
    published("b.csv", [(TWO, "test/8/1/8-1-0002.flac")])
    assert run("train", "--metadata", "a.csv", "--metadata", "b.csv").exit_code == 0
    table = read_metadata("train.csv")
    assert list(table["mixture_ID"]) == ["007-1-0000_2-1-0001", "2-1-0001_8-1-0002"]
    assert table["source_1_path"][0] == f"corpora/LibriSpeech/{ONE}"
    assert table[["speaker_1_ID", "speaker_2_ID"]].to_numpy().tolist() == [["007", "2"], ["2", "8"]]
    assert table["source_2_gain"].tolist() == [0.123456789012345678] * 2
    assert table["noise_path"].tolist() == ["tt/x.wav"] * 2


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(ONE, "train/2/1/2-1-0009.flac")], "1 recordings of the metadata are not in the manif"),
        ([(ONE, "train/007/1/007-1-0001.flac")], "007-1-0000_007-1-0001: a speaker is in it twice"),
    ],
)
def test_published_rows_of_other_recordings_are_refused(
    folder: Path, rows: list[tuple[str, str]], reason: str
) -> None:
    published("a.csv", rows)
    result = run("train", "--metadata", "a.csv")
    assert isinstance(result.exception, MetadataError)
    assert reason in str(result.exception)
    assert not Path("train.csv").exists()


def test_tables_of_other_numbers_of_speakers_or_twice_the_same_are_refused(folder: Path) -> None:
    published("a.csv", [(ONE, TWO)])
    result = run("train", "--metadata", "a.csv", speakers=3)
    assert "a.csv: mixtures of 2 speakers, not of 3" in str(result.exception)
    result = run("train", "--metadata", "a.csv", "--metadata", "a.csv")
    assert "'007-1-0000_2-1-0001' is in several of a.csv, a.csv" in str(result.exception)

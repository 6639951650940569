"""scripts/mix_speakers.py: whole shards, and what was killed, damaged or changed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner, Result

from etaflow.audio import file_checksum, read_audio
from etaflow.manifest import read_table
from etaflow.separation.mixing import Mixture, Roots, metadata_columns, mix_row, read_metadata
from etaflow.separation.tables import mixture_columns, read_mixtures, speakers_of_mixtures
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import mix_speakers

COUNT = 5
CONFIG = {"sample_rate": 8_000, "mode": "min", "kind": "both", "suffix": ".flac"}
KILLED = """
import os, signal, sys
sys.path.insert(0, "scripts")
import mix_speakers
from etaflow.separation import mixing
write, left = mixing.write_lossless, [10]
def dying(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
mixing.write_lossless = dying
mix_speakers.app()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(COUNT):
        for name in "ab":
            samples = generator.normal(0, 0.1, 4_000)
            soundfile.write(tmp_path / f"{name}{index}.wav", samples, 16_000)
        row = [f"a{index}_b{index}", f"a{index}.wav", 0.5, f"b{index}.wav", 0.7]
        rows.append([*row, f"pink:{index}", 1.1, f"speaker-a{index}", f"00{index}"])
    columns = [*metadata_columns(2), "speaker_1_ID", "speaker_2_ID"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "m.csv", index=False)
    return tmp_path


def arguments(folder: Path, *more: str, **config: object) -> list[str]:
    given = {"metadata": "m.csv", "speech": ".", "folder": "out", "output": "out.tsv"}
    options = [item for key, value in given.items() for item in (f"--{key}", str(folder / value))]
    return ["--config", json.dumps(CONFIG | config), *options, *more]


def run(folder: Path, *more: str, **config: object) -> Result:
    return CliRunner().invoke(mix_speakers.app, arguments(folder, *more, **config))


def table(folder: Path) -> pd.DataFrame:
    return read_table(folder / "out.tsv", ("length", "sample_rate"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the mixtures that are written."""
    names: list[str] = []
    write = Mixture.write

    def noted(mixture: Mixture, folder: Path, suffix: str) -> Path:
        names.append(mixture.name)
        return write(mixture, folder, suffix)

    monkeypatch.setattr(Mixture, "write", noted)
    return names


def test_shards_together_are_the_whole_table(folder: Path) -> None:
    names = []
    for shard in ("0", "1"):
        assert run(folder, "--shard", shard, "--shards", "2").exit_code == 0
        written = table(folder)
        names.append(list(written["mixture_ID"]))
        for row in written.to_dict("records"):
            parts = ["source_1", "source_2", "noise"]
            signals = [read_audio(row[f"{part}_path"], None) for part in parts]
            mixture = read_audio(row["mixture_path"], None)
            np.testing.assert_array_equal(np.sum(signals, axis=0, dtype=float), mixture)
            assert len(mixture) == row["length"] == 2_000
            assert row["sample_rate"] == 8_000
            for part in ["mixture", *parts]:
                assert file_checksum(row[f"{part}_path"]) == row[f"{part}_checksum"]
    assert names == [["a0_b0", "a2_b2", "a4_b4"], ["a1_b1", "a3_b3"]]
    assert run(folder, "--shard", "2", "--shards", "2").exit_code == 2
    assert "fewer than 7 rows" in run(folder, "--shard", "6", "--shards", "9").output


def test_a_mixture_is_that_of_its_row(folder: Path) -> None:
    assert run(folder, suffix=".wav", kind="single", mode="max").exit_code == 0
    row = pd.read_csv(folder / "m.csv", float_precision="round_trip").to_dict("records")[3]
    expected = mix_row(row, Roots(folder), 8_000, "max", "single")
    written = table(folder).iloc[3]
    assert list(table(folder)) == mixture_columns(1, True)
    np.testing.assert_array_equal(read_audio(written["mixture_path"], None), expected.mixture)
    np.testing.assert_array_equal(read_audio(written["source_1_path"], None), expected.sources[0])


def test_after_a_kill_exactly_what_is_missing_is_made(folder: Path, made: list[str]) -> None:
    command = [sys.executable, "-c", KILLED, *arguments(folder)]
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "out.tsv").exists()
    # Of four files each, two mixtures were whole, and of the third one file was there.
    assert len(list((folder / "out/mix_both").iterdir())) == 2
    times = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*_b[01].flac")}
    assert len(times) == 8
    assert run(folder).exit_code == 0
    assert made == ["a2_b2", "a3_b3", "a4_b4"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    whole = list((folder / "out").rglob("*.flac"))
    assert len(whole) == 4 * COUNT
    resumed = table(folder)
    assert list(resumed["mixture_ID"]) == [f"a{index}_b{index}" for index in range(COUNT)]
    for path in whole:
        path.unlink()
    (folder / "out.tsv").unlink()
    assert run(folder).exit_code == 0
    pd.testing.assert_frame_equal(table(folder), resumed)


def test_only_what_was_removed_damaged_or_changed_is_made_again(
    folder: Path, made: list[str]
) -> None:
    run(folder)
    first = table(folder)
    made.clear()
    run(folder)
    assert made == []
    Path(first.loc[1, "source_2_path"]).unlink()
    damaged = Path(first.loc[3, "mixture_path"])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    journal = next((folder / "out/journal").iterdir())
    with journal.open("a") as stream:
        stream.write('{"name": "a0_b0", "made_')
    run(folder)
    assert made == ["a1_b1", "a3_b3"]
    pd.testing.assert_frame_equal(table(folder), first)
    made.clear()
    soundfile.write(folder / "a2.wav", np.random.default_rng(5).normal(0, 0.1, 3_900), 16_000)
    rows = read_metadata(folder / "m.csv")
    rows.loc[4, "noise_gain"] = 0.9
    rows.to_csv(folder / "m.csv", index=False)
    run(folder)
    assert made == ["a2_b2", "a4_b4"]
    made.clear()
    run(folder, mode="max")
    assert len(made) == COUNT


def test_kinds_share_their_parts(folder: Path, made: list[str]) -> None:
    for suffix in (".wav", ".flac"):
        for kind in ("both", "clean", "both", "clean"):
            run(folder, kind=kind, suffix=suffix)
        assert len(made) == 2 * COUNT
        made.clear()


def test_speakers_come_from_the_metadata(folder: Path) -> None:
    assert run(folder, kind="clean").exit_code == 0
    written = read_mixtures([folder / "out.tsv"])
    assert list(written) == mixture_columns(2)
    # Ids of digits alone are numbers to `read_metadata`.
    rows = read_metadata(folder / "m.csv")[["speaker_1_ID", "speaker_2_ID"]]
    assert speakers_of_mixtures(written).tolist() == rows.to_numpy(str).tolist()
    (folder / "out.tsv").unlink()
    rows = pd.read_csv(folder / "m.csv", dtype=str)
    rows.loc[3, "speaker_2_ID"] = ""
    rows.to_csv(folder / "m.csv", index=False)
    assert "'a3_b3' has a source without a speaker" in str(run(folder).exception)
    rows.drop(columns=["speaker_2_ID"]).to_csv(folder / "m.csv", index=False)
    result = run(folder)
    assert "no column speaker_2_ID: published tables name utterances" in str(result.exception)
    assert not (folder / "out.tsv").exists()


def test_a_missing_recording_is_named_and_no_table_is_written(folder: Path) -> None:
    (folder / "b3.wav").unlink()
    result = run(folder)
    assert result.exit_code == 1
    assert "b3.wav: unreadable" in str(result.exception)
    assert not (folder / "out.tsv").exists()

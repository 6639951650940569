"""scripts/separate.py: every mixture of a table, and what was killed, damaged or changed."""

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
import torch
from typer.testing import CliRunner, Result

from etaflow.audio import file_checksum, read_audio, resample, write_lossless
from etaflow.manifest import read_table, write_table
from etaflow.separation import estimates
from etaflow.separation.network import Separator
from etaflow.separation.networks import create_separator, load_separator, save_separator
from etaflow.separation.separate import separate
from etaflow.separation.tables import read_mixtures, read_separated, separated_columns
from tests.conftest import remove_placeholders
from tests.mixture_tools import draw_sources, mixture_table
from tests.separation_tools import SETTINGS
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import separate as script

remove_placeholders()

LENGTHS = [800, 900, 800, 700, 800]
KILLED = """
import os, signal, sys
sys.path.insert(0, "scripts")
import separate
from etaflow.separation import estimates
write, left = estimates.write_lossless, [6]
def dying(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
estimates.write_lossless = dying
separate.app()
"""


def save(folder: Path, seed: int = 0, **sizes: object) -> Separator:
    torch.manual_seed(seed)
    network = create_separator(SETTINGS["sepformer"] | sizes)
    folder.mkdir(exist_ok=True)
    save_separator(network, folder, name="small", weights="untrained")
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    table = mixture_table(tmp_path / "mixtures", draw_sources(LENGTHS))
    for shard in (0, 1):
        write_table(table.iloc[shard::2], tmp_path / f"{shard}.tsv")
    return tmp_path


def arguments(folder: Path, resampling: bool = False) -> list[str]:
    given = {"model": "model/model.json", "folder": "out", "output": "out/separated.tsv"}
    options = [item for key, value in given.items() for item in (f"--{key}", str(folder / value))]
    options += [item for path in shards(folder) for item in ("--mixtures", str(path))]
    return ["--system", "small", "--config", json.dumps({"resample": resampling}), *options]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("?.tsv"))


def run(folder: Path, resampling: bool = False) -> Result:
    return CliRunner().invoke(script.app, arguments(folder, resampling))


def written(folder: Path) -> pd.DataFrame:
    return read_separated(folder / "out/separated.tsv", read_mixtures(shards(folder)))


def signals(row: pd.Series) -> np.ndarray:
    return np.stack([read_audio(row[f"estimate_{n}_path"], None) for n in (1, 2)])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the mixtures whose estimates are written."""
    names: list[str] = []
    add = estimates.Journal.add

    def noted(journal, name, *facts):
        names.append(name)
        return add(journal, name, *facts)

    monkeypatch.setattr(estimates.Journal, "add", noted)
    return names


def test_estimates_are_what_the_network_makes_of_each_mixture_alone(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0, result.output
    table = written(folder)
    assert list(read_table(folder / "out/separated.tsv")) == separated_columns(2)
    assert list(table["mixture_ID"]) == ["m0", "m1", "m2", "m3", "m4"]
    assert list(table["length"]) == LENGTHS
    assert set(table["weights"]) == {"untrained"}
    _, network = load_separator(folder / "model")
    for (_, row), mixture in zip(
        table.iterrows(), read_mixtures(shards(folder))["mixture_path"], strict=True
    ):
        np.testing.assert_allclose(
            signals(row), separate(network, read_audio(mixture, None)), atol=1e-5
        )
        for n in (1, 2):
            info = soundfile.info(row[f"estimate_{n}_path"])
            assert (info.subtype, info.samplerate) == ("FLOAT", 8_000)
            assert file_checksum(row[f"estimate_{n}_path"]) == row[f"estimate_{n}_checksum"]


def test_only_mixtures_of_one_length_go_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "BATCH_SECONDS", 0.2)
    sizes: list[tuple[int, ...]] = []
    forward = script.load_separator(folder / "model")[1].__class__.forward

    def noted(network: Separator, mixtures: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(mixtures.shape))
        return forward(network, mixtures)

    monkeypatch.setattr("etaflow.separation.sepformer.SepFormer.forward", noted)
    run(folder)
    assert sizes == [(1, 900), (2, 800), (1, 800), (1, 700)]


def test_long_mixtures_go_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "WHOLE_SECONDS", 0.1)
    network = create_separator(SETTINGS["sepformer"])
    table = mixture_table(tmp_path, draw_sources([1_000, 1_000]))
    calls: list[int] = []

    def noted(network: Separator, mixture: np.ndarray, seconds: float) -> np.ndarray:
        calls.append(len(mixture))
        assert seconds == 0.1
        return separate(network, mixture, seconds, 0.05)

    monkeypatch.setattr(estimates, "separate", noted)
    found = estimates.write_estimates(network, table, tmp_path / "out", "", "untrained")
    assert calls == [1_000, 1_000]
    expected = separate(network, read_audio(table.loc[1, "mixture_path"], None), 0.1, 0.05)
    np.testing.assert_array_equal(signals(found.iloc[1]), expected)


def test_after_a_kill_exactly_what_is_missing_is_made(folder: Path, made: list[str]) -> None:
    command = [sys.executable, "-c", KILLED, *arguments(folder)]
    # As many threads as here, so that sums are of one order.
    same = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | same)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "out/separated.tsv").exists()
    # The longest first: m1, m0 and, of m2, one file of two.
    times = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("m[01].wav")}
    assert len(times) == 4
    assert run(folder).exit_code == 0
    assert made == ["m2", "m4", "m3"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    resumed = (folder / "out/separated.tsv").read_bytes()
    for path in (folder / "out").rglob("*.wav"):
        path.unlink()
    run(folder)
    assert (folder / "out/separated.tsv").read_bytes() == resumed


def test_only_what_changed_is_made_again(folder: Path, made: list[str]) -> None:
    run(folder)
    first = written(folder)
    made.clear()
    run(folder)
    assert made == []
    damaged = Path(first.loc[2, "estimate_2_path"])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    run(folder)
    assert made == ["m2"]
    pd.testing.assert_frame_equal(written(folder), first)
    made.clear()
    table = read_table(folder / "1.tsv")
    path = table.loc[1, "mixture_path"]
    write_lossless(path, draw_sources([700], 1, 5)[0][0], 8_000)
    table.loc[1, "mixture_checksum"] = file_checksum(path)
    write_table(table, folder / "1.tsv")
    run(folder)
    assert made == ["m3"]
    changed = [name for name in first if not written(folder)[name].equals(first[name])]
    assert changed == ["mixture_checksum", "estimate_1_checksum", "estimate_2_checksum"]
    made.clear()
    save(folder / "model", seed=1)
    run(folder)
    assert sorted(made) == ["m0", "m1", "m2", "m3", "m4"]
    run(folder, resampling=True)
    assert len(made) == 10


def test_a_mixture_that_is_not_the_listed_one_is_refused(folder: Path) -> None:
    path = read_mixtures(shards(folder)).loc[3, "mixture_path"]
    write_lossless(path, draw_sources([700], 1, 5)[0][0], 8_000)
    assert "m3.wav: changed since its table was written" in str(run(folder).exception)
    Path(path).unlink()
    assert "m3.wav: unreadable" in str(run(folder).exception)
    assert not (folder / "out/separated.tsv").exists()


def test_rates_that_differ(folder: Path) -> None:
    table = mixture_table(folder / "mixtures16", draw_sources([1_601, 1_400]), 16_000)
    (folder / "1.tsv").unlink()
    write_table(table, folder / "0.tsv")
    result = run(folder)
    message = str(result.exception)
    assert "small works at 8000 Hz, the mixtures are at 16000 Hz" in message
    assert "`resample: true`" in message
    assert not (folder / "out").exists()
    result = run(folder, resampling=True)
    assert result.exit_code == 0, result.output
    found = written(folder).iloc[0]
    assert (found["length"], found["sample_rate"]) == (1_601, 16_000)
    _, network = load_separator(folder / "model")
    mixture = resample(read_audio(table.loc[0, "mixture_path"], None), 16_000, 8_000)
    own = [resample(one, 8_000, 16_000)[:1_601] for one in separate(network, mixture)]
    np.testing.assert_allclose(signals(found), own, atol=1e-5)


@pytest.mark.parametrize("resampling", [True, False])
def test_numbers_of_speakers_that_differ(folder: Path, resampling: bool) -> None:
    save(folder / "model", speakers=3)
    message = str(run(folder, resampling).exception)
    assert "small separates 3 speakers, the mixtures have 2: take mixtures of 3" in message


def test_mixtures_that_are_too_short_are_named(folder: Path) -> None:
    table = mixture_table(folder / "short", draw_sources([15, 800, 9]))
    (folder / "1.tsv").unlink()
    write_table(table, folder / "0.tsv")
    message = str(run(folder).exception)
    assert "2 of 3 mixtures are shorter than the 16 samples at 8000 Hz" in message
    assert "m0, m2; leave them out" in message


@pytest.mark.parametrize("name", ["m1", "m2"])
def test_what_is_not_finite_is_named(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_mixtures(shards(folder)).set_index("mixture_ID")
    spoilt = read_audio(table.loc[name, "mixture_path"], None)
    forward = script.load_separator(folder / "model")[1].__class__.forward

    def spoiling(network: Separator, mixtures: torch.Tensor) -> torch.Tensor:
        found = forward(network, mixtures)
        found[mixtures[:, 0] == float(spoilt[0]), 1, 5] = torch.inf
        return found

    monkeypatch.setattr("etaflow.separation.sepformer.SepFormer.forward", spoiling)
    result = run(folder)
    assert result.exit_code == 1
    assert f"{name}: the separated speakers are not finite" in str(result.exception)
    assert not (folder / "out/separated.tsv").exists()

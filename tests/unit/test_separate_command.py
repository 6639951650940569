"""`etaflow separate`: a recording to its speakers."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from etaflow.audio import BLOCK, read_audio, resample, resampled_blocks
from etaflow.cli import app
from etaflow.separation.networks import create_separator, load_separator, save_separator
from etaflow.separation.separate import separate
from tests.conftest import remove_placeholders
from tests.separation_tools import SETTINGS

remove_placeholders()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    network = create_separator(SETTINGS["conv-tasnet"])
    save_separator(network, tmp_path / "model", name="small", weights="trained")
    return tmp_path / "model"


def record(path: Path, seconds: float, rate: int, channels: int = 1) -> Path:
    shape = (round(seconds * rate), channels)
    samples = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    soundfile.write(path, samples, rate, "FLOAT")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["separate", *map(str, arguments)])


def test_sources_are_what_the_separator_gives(model: Path, tmp_path: Path) -> None:
    path = record(tmp_path / "mix.wav", 45.0, 16_000)  # three chunks
    done = run(path, "-o", tmp_path / "out", "--model", model)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert "note" not in done.stderr
    expected = separate(load_separator(model)[1], read_audio(path))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "source1.wav",
        "source2.wav",
        "source3.wav",
    ]
    for index in range(3):
        source, rate = soundfile.read(tmp_path / f"out/source{index + 1}.wav", dtype="float32")
        assert (rate, len(source)) == (16_000, 45 * 16_000)
        np.testing.assert_array_equal(source, expected[index])


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1)])
def test_any_rate_and_number_of_channels(
    model: Path, tmp_path: Path, rate: int, channels: int
) -> None:
    path = record(tmp_path / "mix.wav", 0.50001, rate, channels)
    done = run(path, "-o", tmp_path / "out", "--model", model)
    assert done.exit_code == 0, done.output
    notes = [line for line in done.stderr.splitlines() if line.startswith("note")]
    averaged = f"note: the 2 channels of {path} were averaged"
    lost = f"note: small works at 16000 Hz; what {path} has above half of that is lost"
    assert notes == ([averaged, lost] if channels == 2 else [])
    samples = soundfile.info(path).frames
    expected = separate(load_separator(model)[1], read_audio(path))[0]
    source, found = soundfile.read(tmp_path / "out/source1.wav", dtype="float32")
    assert (found, len(source)) == (rate, samples)
    np.testing.assert_allclose(source, resample(expected, 16_000, rate)[:samples], atol=1e-6)


def test_problems_are_one_line_and_leave_nothing(model: Path, tmp_path: Path) -> None:
    path = record(tmp_path / "mix.wav", 0.5, 16_000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "taken").mkdir()
    info = json.loads((model / "model.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model.json").write_text(json.dumps({**info, "architecture": "wavlm"}))
    out = tmp_path / "out"
    for arguments, problem in (
        ((tmp_path / "empty.wav", "-o", out, "--model", model), "empty.wav: empty file"),
        ((tmp_path / "no.wav", "-o", out, "--model", model), "no.wav: unreadable: No such file"),
        ((path, "-o", tmp_path / "taken", "--model", model), "taken exists: name a folder that"),
        ((path, "-o", out, "--model", tmp_path), f"{tmp_path} holds no model.json"),
        ((path, "-o", out, "--model", tmp_path / "other"), "small: 'wavlm' is no separator"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert problem in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert not out.exists()
    assert not list((tmp_path / "taken").iterdir())


def test_an_untrained_separator_says_so(model: Path, tmp_path: Path) -> None:
    network = load_separator(model)[1]
    save_separator(network, model, name="small", weights="untrained")
    path = record(tmp_path / "mix.wav", 0.5, 16_000)
    done = run(path, "-o", tmp_path / "out", "--model", model)
    assert done.stderr.endswith("note: this separator is untrained; expect noise\n")


@pytest.mark.parametrize(("source", "target"), [(8_000, 44_100), (16_000, 8_000), (8_000, 8_000)])
def test_resampling_in_blocks_is_resampling_at_once(source: int, target: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 2 * BLOCK + 77).astype(np.float32)
    blocks = list(resampled_blocks(wave, source, target))
    assert len(blocks) == 3
    # At once, torchaudio makes a few samples too few; the last is then repeated.
    expected, found = resample(wave, source, target), np.concatenate(blocks)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found[:-5], expected[:-5], atol=1e-6)
    assert sum(map(len, resampled_blocks(wave[:0], source, target))) == 0

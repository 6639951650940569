"""How the script that draws the speakers chooses what it draws."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from etaflow.store import Embeddings
from tests.workflow_tools import ROOT

spec = importlib.util.spec_from_file_location("script", ROOT / "scripts" / "plot_speakers.py")
assert spec
assert spec.loader
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "utterance_umap", lambda vectors, seed: vectors[:, :2])


def embedded(path: Path, utterances: int) -> str:
    vectors = np.random.default_rng(0).normal(size=(utterances, 4))
    names = [f"u{number}" for number in range(utterances)]
    Embeddings(names, ["x", "y"] * (utterances // 2), vectors, path.stem, "trained").write(path)
    return str(path)


def test_at_most_so_many_utterances_are_drawn(tmp_path: Path) -> None:
    shown = script.speaker_map(Path(embedded(tmp_path / "one.h5", 10)), 6, 0)
    assert shown.title == "one\n6 of 10 utterances"
    assert shown.points.shape == (6, 2)
    assert len(shown.speakers) == 6


def test_an_encoder_of_too_few_utterances_is_left_out_and_named(tmp_path: Path) -> None:
    files = [embedded(tmp_path / "few.h5", 2), embedded(tmp_path / "many.h5", 6)]
    options = ["--output", str(tmp_path / "speakers.svg"), "--limit", "100", "--seed", "0"]
    done = CliRunner().invoke(script.app, [*files, *options])
    assert done.exit_code == 0, done.output
    assert "left out: few: 2 validation utterances, fewer than 4" in done.output
    drawn = (tmp_path / "speakers.svg").read_text(encoding="utf-8")
    assert "many" in drawn
    assert "few" not in drawn
    done = CliRunner().invoke(script.app, [files[0], *options])
    assert isinstance(done.exception, script.TooFewError)

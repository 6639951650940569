"""A verifier: bundled by `scripts/bundle_verifier.py`, used by `etaflow verify`."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner, Result

from etaflow.cli import app
from etaflow.fetching import fetch_model
from etaflow.folder_embeddings import find_encoder
from etaflow.manifest import write_table
from etaflow.metrics import equal_error_rate
from etaflow.models import ModelInfo
from etaflow.speaker.networks import create_network, save_network
from etaflow.verification import COLUMNS, Calibration
from etaflow.verification.verifier import Verifier, VerifierError
from tests.unit.test_speaker import tdnn_folder, voices
from tests.workflow_tools import ROOT

CONFIG: dict[str, Any] = {
    "run": "study",
    "trials": "pairs",
    "corpora": ["mini", "other"],
    "as_norm": None,
    "max_seconds": None,
}
SCRIPT = runpy.run_path(str(ROOT / "scripts/bundle_verifier.py"))["app"]
SCORES, TARGETS = [0.9, 0.8, 0.55, 0.6, 0.3, 0.2, 0.1], [1, 1, 1, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def resemblyzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "resemblyzer"
    fetch_model("resemblyzer", {"source": "package", "architecture": "resemblyzer"}, folder)
    return folder


def bundle(
    folder: Path,
    encoder: Path,
    config: dict[str, Any] | None = None,
    calibration: Calibration | None = None,
    weights: str = "published",
) -> Result:
    """Run the script on the trials above; the verifier is `folder/verifier`."""
    scores = pd.DataFrame({"enrolment": [*"abcdefg"], "test": [*"hijklmn"], "target": TARGETS})
    write_table(scores.assign(score=SCORES), folder / "scores.tsv")
    rows = [
        ("cosine", "pairs", "eer", 25.0, 20.0, 30.0, 7, weights),
        ("cosine", "pairs", "min_dcf_0.01", 0.5, 0.4, 0.6, 7, weights),
        ("cosine", "others", "eer", 1.0, 1.0, 1.0, 7, weights),
    ]
    write_table(pd.DataFrame(rows, columns=COLUMNS), folder / "metrics.tsv")
    arguments = [
        *("--system", "cosine", "--encoder", encoder / "model.json"),
        *("--metrics", folder / "metrics.tsv", "--trials", folder / "scores.tsv"),
        *("--config", json.dumps(config or CONFIG), "--output-dir", folder / "verifier"),
    ]
    if calibration:
        calibration.write(folder / "calibration.json")
        arguments += ["--calibration", folder / "calibration.json"]
    return CliRunner().invoke(SCRIPT, [str(argument) for argument in arguments])


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    waves = voices()
    for path, wave in zip(paths, (waves[0], waves[0][: len(waves[0]) // 2], waves[1]), strict=True):
        soundfile.write(path, wave, 16_000)
    return paths


def verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_verifier_by_cosine(resemblyzer: Path, recordings: list[Path], tmp_path: Path) -> None:
    done = bundle(tmp_path, resemblyzer)
    assert done.exit_code == 0, done.exception
    stored = json.loads((tmp_path / "verifier/verifier.json").read_text())
    expected = equal_error_rate(SCORES, TARGETS)[1]
    assert stored["threshold"] == expected
    assert 0.5 < expected < 0.7
    assert stored["trials"] == {
        "run": "study",
        "name": "pairs",
        "targets": 3,
        "nontargets": 4,
        "corpora": ["mini", "other"],
        "eer": 25.0,
        "eer_trials": "pairs",
        "weights": "published",
    }
    card = (tmp_path / "verifier/README.md").read_text()
    assert "# Speaker verifier `cosine` of the run `study`" in card
    assert "Equal error rate on the trials `pairs`: 25.00 %, the trials that the thre" in card
    assert "Warning" not in card

    one, half, other = recordings
    waves = [soundfile.read(path, dtype="float32")[0] for path in recordings]
    vectors = find_encoder("resemblyzer").embed(waves)
    for path, vector in ((half, vectors[1]), (other, vectors[2])):
        done = verify(one, path, "--bundle", tmp_path / "verifier", "--json")
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        assert said["score"] == pytest.approx(cosine(vectors[0], vector), abs=1e-5)
        assert said["unit"] == "cosine"
        assert said["same_speaker"] is (said["score"] >= expected)
        assert (said["system"], said["trials"]["eer"]) == ("cosine", 25.0)
        swapped = json.loads(verify(path, one, "--bundle", tmp_path / "verifier", "--json").stdout)
        assert swapped["score"] == pytest.approx(said["score"], abs=1e-6)
    # Of a bundle, the verifier that it holds.
    beside = verify(one, other, "--bundle", tmp_path, "--json")
    assert beside.stdout == verify(one, other, "--bundle", tmp_path / "verifier", "--json").stdout
    done = verify(one, one, "--bundle", tmp_path / "verifier")
    assert done.stdout.splitlines() == [
        "score:     1.0000 (cosine)",
        f"threshold: {expected:.4f}",
        "decision:  same speaker",
        "threshold set on pairs of the run study: 3 target and 4 non-target trials; equal error "
        "rate on pairs 25.00 %",
        "corpora:   mini, other",
    ]
    assert done.stderr == ""


def test_a_calibrated_verifier(resemblyzer: Path, recordings: list[Path], tmp_path: Path) -> None:
    fitted_on = {"trials": "held", "encoder": "resemblyzer", "as_norm": None}
    fitted_on |= {"targets": 30, "nontargets": 300}
    features = ("score", "duration_min", "norm_min", "norm_mean")
    calibration = Calibration(features, (10.0, 2.0, 0.5, 0.25), -7.0, fitted_on)
    done = bundle(tmp_path, resemblyzer, {**CONFIG, "max_seconds": 1.5}, calibration)
    assert done.exit_code == 0, done.exception
    verifier = Verifier.from_pretrained(tmp_path / "verifier")
    assert (verifier.threshold, verifier.max_seconds) == (0.0, 1.5)
    assert verifier.calibration == Calibration(features, (10.0, 2.0, 0.5, 0.25), -7.0, fitted_on)
    one, half, _ = (soundfile.read(path, dtype="float32")[0] for path in recordings)
    assert len(half) < 24_000 < len(one)
    found = verifier.score(one, half)
    vectors = np.concatenate([verifier.encoder.embed([wave]) for wave in (one[:24_000], half)])
    seconds = len(half) / 16_000
    # Resemblyzer's embeddings are of length 1.
    expected = 10 * cosine(*vectors) + 2 * np.log(seconds) + 0.5 + 0.25 - 7
    assert found.score == pytest.approx(expected, abs=1e-4)
    assert (found.unit, found.threshold) == ("log-likelihood ratio", 0.0)
    assert found.same_speaker is bool(expected >= 0)
    # What is not heard of a recording makes it no longer.
    longer = verifier.score(one, one[:28_000])
    assert longer.score == pytest.approx(10 + 2 * np.log(1.5) + 0.75 - 7, abs=1e-4)
    done = verify(*recordings[:2], "--bundle", tmp_path / "verifier")
    assert done.stdout.splitlines()[3] == (
        "calibrated on held of the run study: 30 target and 300 non-target trials; equal error "
        "rate on pairs 25.00 %"
    )
    card = (tmp_path / "verifier/README.md").read_text()
    assert "calibrated on `held` (30 target and 300 non-target trials)" in card


def test_as_much_is_heard_as_the_trials_embeddings_are_of() -> None:
    heard = []

    class Encoder:
        info = ModelInfo("toy", "path", "ecapa", "1", "trained", ".")
        dim = 2

        def embed(self, waveforms: list[np.ndarray]) -> np.ndarray:
            heard.append(len(waveforms[0]))
            return np.ones((1, 2), np.float32)

    verifier = Verifier(Encoder(), "toy", 0.5, None, 1.001, {})
    verifier.score(np.zeros(20_000, np.float32), np.zeros(16_000, np.float32))
    assert heard == [16_016, 16_000]  # 1.001 * 16,000 is 16,015.999…


def test_untrained_weights_are_said(recordings: list[Path], tmp_path: Path) -> None:
    done = bundle(tmp_path, tdnn_folder(tmp_path / "ecapa", "ecapa"), weights="untrained")
    assert done.exit_code == 0, done.exception
    assert "Warning: untrained weights" in (tmp_path / "verifier/README.md").read_text()
    done = verify(*recordings[:2], "--bundle", tmp_path / "verifier")
    assert done.exit_code == 0
    assert "note: this verifier stands on untrained weights" in done.stderr
    # The folder has all that it needs.
    (tmp_path / "ecapa/embedding_model.ckpt").unlink()
    assert verify(*recordings[:2], "--bundle", tmp_path / "verifier").exit_code == 0


def test_embeddings_of_people_are_not_bundled(recordings: list[Path], tmp_path: Path) -> None:
    network = create_network({"kind": "xvector", "channels": 16, "dim": 8})
    run = tmp_path / "run"
    run.mkdir()
    save_network(network, run, name="run", weights="trained")
    (run / "validation.h5").write_bytes(b"embeddings")
    done = bundle(tmp_path, run)
    assert done.exit_code == 0, done.exception
    found = {path.name for path in (tmp_path / "verifier/encoder").iterdir()}
    assert found == {"config.json", "encoder.safetensors", "model.json"}
    (tmp_path / "run").rename(tmp_path / "gone")
    (tmp_path / "verifier").rename(tmp_path / "else where")
    assert verify(*recordings[:2], "--bundle", tmp_path / "else where").exit_code == 0


def test_what_cannot_be_bundled(resemblyzer: Path, tmp_path: Path) -> None:
    done = bundle(tmp_path, resemblyzer, {**CONFIG, "as_norm": {"topk": 300}})
    assert "cosine normalises scores with a cohort" in str(done.exception)
    done = bundle(tmp_path, resemblyzer, {**CONFIG, "trials": "none"})
    assert "0 rows of the eer of cosine on none" in str(done.exception)
    other = Calibration(("score",), (1.0,), 0.0, {"encoder": "ecapa", "trials": "held"})
    done = bundle(tmp_path, resemblyzer, calibration=other)
    assert "is of scores by ecapa, the encoder is resemblyzer" in str(done.exception)
    assert not (tmp_path / "verifier").exists()


def test_what_cannot_be_verified(resemblyzer: Path, recordings: list[Path], tmp_path: Path) -> None:
    assert bundle(tmp_path, resemblyzer).exit_code == 0
    one, folder = recordings[0], tmp_path / "verifier"
    (tmp_path / "empty.wav").touch()
    for arguments, problem in (
        ((tmp_path / "empty.wav", one, "--bundle", folder), f"{tmp_path / 'empty.wav'}: empty"),
        ((one, one, "--bundle", folder / "encoder"), "holds no verifier.json"),
    ):
        done = verify(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert problem in done.stderr
    path = folder / "verifier.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "format": "etaflow-verifier/9"}))
    with pytest.raises(VerifierError, match=r"'etaflow-verifier/9' is not etaflow-verifier/1"):
        Verifier.from_pretrained(folder)
    del stored["threshold"]
    for content in (json.dumps(stored), "{"):
        path.write_text(content)
        with pytest.raises(VerifierError, match=r"verifier\.json is damaged"):
            Verifier.from_pretrained(folder)

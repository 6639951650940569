"""Speaker encoders trained and compared by the real workflow; the presets' small twins."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sklearn.metrics import roc_curve
from typer.testing import CliRunner

from etaflow.cli import app
from etaflow.manifest import read_manifest, read_table
from etaflow.metrics import equal_error_rate
from etaflow.speaker import load_speaker_encoder
from etaflow.store import Embeddings
from tests.unit.test_speaker import tdnn_folder
from tests.unit.test_unispeech import published
from tests.upstream_unispeech import random_encoder
from tests.workflow_tools import load_config, planned, snakemake, speakers_config

pytestmark = pytest.mark.slow
CONFIG = speakers_config()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speakers")
    snakemake(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> Path:
    return run / "results" / "speakers"


def test_every_system_is_scored_on_the_same_trials(results: Path) -> None:
    table = read_table(results / "verification/metrics.tsv", ("value", "low", "high", "n"))
    columns = ["system", "trials", "metric", "value", "low", "high", "n", "weights"]
    assert list(table.columns) == columns
    assert set(table["system"]) == set(CONFIG["verification"]["systems"])
    assert set(table["trials"]) == {"mini-test"}
    trials = read_table(results / "verification/trials/mini-test.tsv", ("target",))
    assert set(table["n"]) == {len(trials)}
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    metrics = table.groupby("system")["metric"].agg(set)
    plain = {"eer", "min_dcf_0.01", "min_dcf_0.05"}
    assert metrics["resemblyzer-calibrated"] == plain | {"act_dcf_0.01", "act_dcf_0.05", "cllr"}
    assert all(found == plain for name, found in metrics.items() if "calibrated" not in name)
    weights = table.groupby("system")["weights"].agg(set)
    assert weights["ecapa-untrained"] == weights["wavlm-rawnet-untrained"] == {"untrained"}
    assert weights["resemblyzer"] == weights["resemblyzer-norm"] == {"published"}


def test_trials_are_of_unseen_speakers_and_scores_are_cosines(results: Path) -> None:
    manifest = read_manifest(results / "manifests/mini-voices.tsv").set_index("utterance_id")
    scores = read_table(results / "verification/ecapa-ge2e/mini-test.tsv", ("target", "score"))
    sides = manifest.loc[[*scores["enrolment"], *scores["test"]], "split"]
    assert set(sides) == {"test"}
    one, other = (
        manifest.loc[scores[name], "speaker_id"].to_numpy() for name in ("enrolment", "test")
    )
    np.testing.assert_array_equal(one == other, scores["target"] == 1)
    vectors = Embeddings.read(results / "embeddings/mini-voices/ecapa-ge2e.h5")
    a, b = (vectors.rows(list(scores[name])) for name in ("enrolment", "test"))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(scores["score"], cosines, atol=1e-5)
    accepted, hits, _ = roc_curve(scores["target"], scores["score"], drop_intermediate=False)
    rate, _ = equal_error_rate(scores["score"], scores["target"])
    table = read_table(results / "verification/metrics.tsv", ("value",))
    row = table[(table["system"] == "ecapa-ge2e") & (table["metric"] == "eer")]
    assert row["value"].item() == pytest.approx(100 * rate, abs=1e-3)
    crossing = np.argmax(1 - hits <= accepted)
    assert (1 - hits)[crossing] <= rate <= accepted[crossing]


def test_embeddings_of_the_beginning_are_of_the_beginning(run: Path, results: Path) -> None:
    cut = Embeddings.read(results / "embeddings/mini-voices/resemblyzer-first1.5s.h5")
    row = read_manifest(results / "manifests/mini-voices.tsv").iloc[5]
    waveform, _ = soundfile.read(run / row["path"], dtype="float32")
    encoder = load_speaker_encoder(run / "resources/models/resemblyzer")
    np.testing.assert_allclose(
        cut.rows([row["utterance_id"]]), encoder.embed([waveform[:24_000]]), atol=1e-5
    )


def test_a_trained_encoder_says_what_it_is(results: Path) -> None:
    folder = results / "encoders/wavlm-rawnet"
    info = json.loads((folder / "model.json").read_text())
    assert (info["architecture"], info["weights"]) == ("etaflow-encoder", "trained")
    held_out = Embeddings.read(folder / "validation.h5")
    assert len(set(held_out.speaker_ids)) == 3
    history = read_table(folder / "metrics.tsv", ("step", "value"))
    rates = history[history["metric"] == "valid/eer"]
    assert rates["step"].tolist() == [0, 2, 4]
    assert rates["value"].between(0, 100).all()
    untrained = read_table(results / "encoders/ecapa-untrained/metrics.tsv")
    assert set(untrained["step"]) == {"0"}


def test_the_report_has_all_of_it(results: Path) -> None:
    report = results / "report"
    found = {path.name for path in report.iterdir()}
    figures = {"speakers.svg", "det-mini-test.svg", "training-encoders.svg"}
    assert found == figures | {"verification.html"}
    page = (report / "verification.html").read_text()
    assert all(f">{name}<" in page for name in CONFIG["verification"]["systems"])
    assert "untrained weights" in page


def test_two_recordings_are_compared_by_the_runs_verifier(run: Path, results: Path) -> None:
    manifest = read_manifest(results / "manifests/mini-voices.tsv").set_index("utterance_id")
    scores = read_table(
        results / "verification/resemblyzer-calibrated/mini-test.tsv", ("target", "score")
    )
    first = scores.iloc[3]
    files = [str(run / manifest.loc[first[name], "path"]) for name in ("enrolment", "test")]
    bundle = ["--bundle", str(results / "verifier"), "--json"]
    done = CliRunner().invoke(app, ["verify", *files, *bundle])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["score"] == pytest.approx(first["score"], abs=1e-4)
    assert said["same_speaker"] == (first["score"] >= 0)
    assert "mini-train" in json.dumps(said)


def test_nothing_is_left_to_do(run: Path) -> None:
    assert planned(run, CONFIG) == {}


MINI = {"kind": "mini", "speakers": 10, "sentences": 4, "seed": 1, "shards": 1}
SIZES: dict[str, Any] = {
    "speakers": 4,
    "utterances": 2,
    "crop_seconds": 0.5,
    "validate_every": 2,
    "precision": "float32",
    "validation": {"speakers": 3, "nontargets": 20, "max_seconds": 1.0},
}


def twin(preset: str, folder: Path) -> dict[str, Any]:
    """A preset on `mini`, with small models in the same format on disk, for a few steps."""
    config = load_config(preset)
    for name in config["corpora"]:
        split = {"by": "speaker", "test_fraction": 1.0 if name == "vctk" else 0.4}
        config["corpora"][name] = MINI | {"split": split, "speakers": 6 if name == "vctk" else 10}
    for name, model in config["models"].items():
        path = folder / name
        if model["architecture"] == "ecapa":
            tdnn_folder(path, "ecapa")
        elif model["architecture"] == "unispeech":
            published(path, random_encoder(wavlm="hubert" not in name, large="large" in name))
        elif model["architecture"] == "wavlm":
            config["models"][name] = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
        if path.is_dir():
            (path / "model.json").unlink()
            local = {"source": "path", "path": str(path), "weights": "untrained"}
            config["models"][name] = local | {"architecture": model["architecture"]}
    for entry in config.get("encoders", {}).values():
        entry |= SIZES
        if "steps" in entry:
            entry["steps"] = 3
        entry["schedule"]["warmup_steps"] = 1
        if entry.get("trained_layers"):
            entry["trained_layers"] = 2
        entry["network"] |= {k: 8 for k in ("channels", "dim") if k in entry["network"]}
        entry["network"] |= {"layer": 2} if "layer" in entry["network"] else {}
    for name, entry in config["verification"]["trials"].items():
        if "list" in entry:
            entry["list"] = str(folder / f"{name}.txt")
            lines = [
                "1 woman01/a/woman01-a-000.wav woman01/b/woman01-b-003.wav",
                "1 man01/a/man01-a-000.wav man01/b/man01-b-002.wav",
                "0 man01/a/man01-a-001.wav woman01/a/woman01-a-001.wav",
                "0 woman02/a/woman02-a-001.wav woman01/b/woman01-b-002.wav",
            ]
            Path(entry["list"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            entry |= {"targets": 12, "nontargets": 20}
    config["verification"]["evaluate"] = config["verification"]["evaluate"][:1]
    config["verification"]["bootstrap_rounds"] = 100
    return config


@pytest.mark.parametrize("preset", ["voxceleb", "kathbath", "wavlm-rawnet", "ge2e"])
def test_a_preset_runs_on_mini(tmp_path: Path, preset: str) -> None:
    config = twin(preset, tmp_path)
    snakemake(tmp_path, config)
    results = tmp_path / "results" / config["run"]
    table = read_table(results / "verification/metrics.tsv", ("value",))
    rates = table[table["metric"] == "eer"]
    systems, lists = config["verification"]["systems"], config["verification"]["evaluate"]
    assert len(rates) == len(systems) * len(lists)
    assert rates["value"].between(0, 100).all()
    page = (results / "report/verification.html").read_text()
    assert all(f">{name}<" in page for name in systems)
    for name in config.get("encoders", {}):
        assert (results / f"encoders/{name}/model.json").is_file()
    assert planned(tmp_path, config) == {}

"""From a manifest and embeddings to the page: the scripts of verification, one after another."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from etaflow.manifest import read_table, write_manifest, write_table
from etaflow.metrics import cllr, equal_error_rate
from etaflow.store import Embeddings, StoreError
from etaflow.trials import TrialsError, read_trials_table
from etaflow.verification import Calibration
from scripts import (
    collect_metrics,
    make_trials,
    plot_det_verification,
    render_verification,
    score_verification,
)

DRAWN = {"targets": 20, "nontargets": 60, "split": "test", "across_sessions": True, "seed": 0}
PLAIN = {
    "max_seconds": None,
    "as_norm": None,
    "calibration": None,
    "bootstrap_rounds": 30,
    "seed": 0,
}


def run(script, *arguments, ok=True):
    done = CliRunner().invoke(
        script.app, [str(argument) for argument in arguments], catch_exceptions=not ok
    )
    assert (done.exit_code == 0) == ok, done.output
    return done


def failure(script, *arguments):
    done = run(script, *arguments, ok=False)
    return done.exception, done.output


@pytest.fixture
def corpus(tmp_path):
    """Twelve speakers, four of each split: test, dev (to calibrate on) and train (the cohort)."""
    rng = np.random.default_rng(0)
    rows, vectors = [], []
    for number in range(12):
        voice = rng.normal(size=16)
        for take in range(4):
            name = f"s{number:02d}-{take}"
            rows.append(
                {
                    "utterance_id": name,
                    "speaker_id": f"s{number:02d}",
                    "session_id": str(take),
                    "split": ("test", "dev", "train")[number // 4],
                    "path": f"/audio/{name.replace('-', '/')}.wav",
                    "num_samples": int(rng.integers(16_000, 80_000)),
                    "sample_rate": 16_000,
                    "text": "",
                    "shard": "0000",
                    "checksum": name,
                }
            )
            vectors.append(voice + 0.8 * rng.normal(size=16))
    table = pd.DataFrame(rows)
    write_manifest(table, tmp_path / "manifest.tsv")
    Embeddings(
        list(table["utterance_id"]),
        list(table["speaker_id"]),
        np.array(vectors, np.float32),
        "toy",
        "untrained",
    ).write(tmp_path / "e.h5")
    return tmp_path


def make(corpus, name="trials", *more, **settings):
    run(
        make_trials,
        *("--config", json.dumps(DRAWN | settings), "--manifest", corpus / "manifest.tsv"),
        *("--output", corpus / f"{name}.tsv", "--summary", corpus / f"{name}.json", *more),
    )
    return corpus / f"{name}.tsv"


def scoring(corpus, system="plain", settings=PLAIN, trials="trials"):
    folder = corpus / system
    return [
        *("--system", system, "--trials-name", trials, "--config", json.dumps(settings)),
        *("--manifest", corpus / "manifest.tsv", "--trials", corpus / f"{trials}.tsv"),
        *("--output", folder / f"{trials}.tsv", "--metrics", folder / f"{trials}-metrics.tsv"),
    ]


def calibrating(corpus, trials, settings=None):
    settings = (
        PLAIN
        | {
            "as_norm": {"topk": 3},
            "calibration": {"trials": "dev", "quality": ["duration", "norm"]},
        }
        | (settings or {})
    )
    return [
        *scoring(corpus, "calibrated", settings),
        *("--embeddings", corpus / "e.h5", "--cohort", corpus / "e.h5"),
        *("--cohort-manifest", corpus / "manifest.tsv", "--calibration-trials", trials),
        *("--calibration-embeddings", corpus / "e.h5"),
        *("--calibration-manifest", corpus / "manifest.tsv"),
        *("--calibration-output", corpus / "calibrated" / "calibration.json"),
    ]  # fmt: skip


def test_from_trials_to_page(corpus):
    make(corpus)
    dev = make(corpus, "dev", split="dev")
    run(score_verification, *scoring(corpus), "--embeddings", corpus / "e.h5")
    run(score_verification, *calibrating(corpus, dev))
    systems = ("plain", "calibrated")
    averaged = [
        part
        for name in systems
        for part in (
            *("--scores", corpus / name / "trials.tsv"),
            *("--score-metrics", corpus / name / "trials-metrics.tsv"),
        )
    ]
    run(score_verification, *scoring(corpus, "mean"), *averaged)
    tables = {n: read_trials_table(corpus / n / "trials.tsv") for n in (*systems, "mean")}
    np.testing.assert_allclose(
        tables["mean"]["score"],
        (tables["plain"]["score"] + tables["calibrated"]["score"]) / 2,
        atol=2e-6,
    )
    collected = corpus / "metrics.tsv"
    files = [corpus / name / "trials-metrics.tsv" for name in tables]
    run(collect_metrics, *(a for f in files for a in ("--metrics", f)), "--output", collected)
    metrics = read_table(collected, ("value",)).set_index(["system", "metric"])["value"]
    for name, table in tables.items():
        rate = 100 * equal_error_rate(table["score"], table["target"])[0]
        assert metrics[name, "eer"] == pytest.approx(rate, abs=1e-3)
    bits = cllr(tables["calibrated"]["score"], tables["calibrated"]["target"])
    assert metrics["calibrated", "cllr"] == pytest.approx(bits, abs=1e-3)
    assert ("mean", "cllr") not in metrics.index
    assert set(read_table(collected)["weights"]) == {"untrained"}
    calibration = Calibration.read(corpus / "calibrated" / "calibration.json")
    assert calibration.features == ("score", "duration_min", "norm_min", "norm_mean")
    assert calibration.fitted_on["as_norm"] == {"topk": 3, "cohort": 4}

    plain = {"encoder": "toy", "max_seconds": None, "as_norm": None, "corpora": []}
    described = {"plain": plain, "calibrated": plain, "mean": {"average": systems, "corpora": []}}
    arguments = ["--title", "A & B", "--summary", corpus / "trials.json"]
    arguments += ["--systems", json.dumps(described)]
    arguments += ["--calibration", corpus / "calibrated" / "calibration.json"]
    run(render_verification, collected, *arguments, "--output", corpus / "page.html")
    page = (corpus / "page.html").read_text()
    assert "A &amp; B" in page
    assert "20 target and 60 non-target trials of 16 utterances by 4 speakers" in page
    words = "by toy; calibrated on 20 target and 60 non-target trials of dev, with scores norm"
    assert words in page
    assert "<b>mean</b>: the mean of the scores of plain and calibrated" in page
    assert "Untrained weights in the path" in page
    assert page.index("cllr") < page.index("Published elsewhere") < page.index("0.431")
    scores = [corpus / name / "trials.tsv" for name in tables]
    run(plot_det_verification, *scores, "--metrics", collected, "--output", corpus / "det.svg")
    assert (corpus / "det.svg").stat().st_size > 5000


def test_a_list_with_missing_audio(corpus):
    (corpus / "list.txt").write_text(
        "1 s00/0.wav s00/1.wav\n0 s00/0.wav s01/0.wav\n0 s00/0.wav s99/0.wav\n"
    )
    make(corpus, "known", "--list", corpus / "list.txt", missing="exclude")
    summary = json.loads((corpus / "known.json").read_text())
    assert summary["excluded"] == {"trials": 1, "recordings": ["s99/0.wav"]}
    assert (summary["targets"], summary["nontargets"], summary["speakers"]) == (1, 1, 2)
    arguments = ["--config", '{"missing": "error"}', "--manifest", corpus / "manifest.tsv"]
    arguments += ["--list", corpus / "list.txt", "--output", corpus / "x.tsv"]
    error, _ = failure(make_trials, *arguments, "--summary", corpus / "x.json")
    assert isinstance(error, TrialsError)
    assert "s99/0.wav" in str(error)
    assert not (corpus / "x.tsv").exists()


def test_trials_that_say_little_are_counted(corpus):
    make(corpus)
    summary = json.loads((corpus / "trials.json").read_text())
    assert (summary["repeated"], summary["of_one_file"]) == (0, 0)
    manifest = read_table(corpus / "manifest.tsv")
    # Another name of the same bytes.
    same = manifest["utterance_id"] == "s01-1"
    manifest.loc[same, "checksum"] = "s01-0"
    write_manifest(manifest, corpus / "manifest.tsv")
    (corpus / "list.txt").write_text(
        "1 s00-0 s00-1\n1 s00-0 s00-0\n1 s00-1 s00-0\n0 s00-0 s01-0\n0 s00-0 s01-0\n1 s01-1 s01-0\n"
    )
    make(corpus, "known", "--list", corpus / "list.txt", missing="error")
    summary = json.loads((corpus / "known.json").read_text())
    assert (summary["repeated"], summary["of_one_file"]) == (2, 2)
    assert (summary["targets"], summary["nontargets"]) == (4, 2)


def test_speakers_who_took_part_and_the_same_trials_are_refused(corpus):
    trials = make(corpus)
    error, _ = failure(score_verification, *calibrating(corpus, trials))
    assert "very trials that are scored, dev" in str(error)
    other = make(corpus, "other", seed=1)
    error, _ = failure(score_verification, *calibrating(corpus, other))
    assert "4 speaker(s) of the trials are also in the calibration trials dev: s00" in str(error)
    make(corpus, split="train")
    error, _ = failure(score_verification, *calibrating(corpus, other))
    assert "4 speaker(s) of the trials are also in the cohort: s08" in str(error)
    assert not (corpus / "calibrated").exists()


def test_the_duration_is_that_which_was_heard(corpus):
    make(corpus)
    dev = make(corpus, "dev", split="dev")
    kind, _ = failure(score_verification, *calibrating(corpus, dev, {"max_seconds": 0.5}))
    assert isinstance(kind, TrialsError)
    assert "by duration_min: it is not finite, or the same in all trials" in str(kind)
    run(score_verification, *calibrating(corpus, dev, {"max_seconds": 2.0}))
    calibration = Calibration.read(corpus / "calibrated" / "calibration.json")
    assert calibration.fitted_on["max_seconds"] == 2.0


def test_another_encoder_is_refused(corpus):
    make(corpus)
    dev = make(corpus, "dev", split="dev")
    stored = Embeddings.read(corpus / "e.h5")
    Embeddings(
        stored.utterance_ids, stored.speaker_ids, stored.vectors, "other", "published"
    ).write(corpus / "other.h5")
    for option in ("--cohort", "--calibration-embeddings"):
        arguments = [*calibrating(corpus, dev), option, corpus / "other.h5"]
        error, _ = failure(score_verification, *arguments)
        assert isinstance(error, StoreError)
        assert "by other, those of the trials by toy" in str(error)


def test_what_is_asked_for_without_its_files_is_an_error(corpus):
    make(corpus)
    settings = PLAIN | {"as_norm": {"topk": 3}}
    for arguments, reason in (
        (scoring(corpus), "--embeddings"),
        ([*scoring(corpus, settings=settings), "--embeddings", corpus / "e.h5"], "--cohort"),
        ([*scoring(corpus), "--scores", corpus / "trials.tsv"], "--score-metrics"),
    ):
        _, output = failure(score_verification, *arguments)
        assert reason in output


def test_a_figure_that_stands_twice_is_refused(corpus):
    make(corpus)
    run(score_verification, *scoring(corpus), "--embeddings", corpus / "e.h5")
    file = corpus / "plain" / "trials-metrics.tsv"
    twice = ["--metrics", file, "--metrics", file, "--output", corpus / "m.tsv"]
    error, _ = failure(collect_metrics, *twice)
    assert "eer of trials of plain stands twice" in str(error)
    other = corpus / "plain" / "other.tsv"
    write_table(read_table(file).drop(columns="trials"), other)
    twice[3] = other
    error, _ = failure(collect_metrics, *twice)
    assert "columns" in str(error)

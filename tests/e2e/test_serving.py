"""The bundle that the workflow makes of `mini`, served, and asked by the client."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from etaflow.audio import read_audio
from etaflow.converter import VoiceConverter
from etaflow.manifest import read_manifest, read_table
from etaflow.serve import Client
from tests.serve_tools import Running, serve
from tests.workflow_tools import planned, serving_config, snakemake

pytestmark = pytest.mark.slow
CONFIG = serving_config()
BUNDLE = "results/serving/bundle"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    snakemake(folder, CONFIG, f"{BUNDLE}/config.json")
    return folder


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(run / BUNDLE, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Client:
    return Client(server.url)


def test_it_does_all_that_the_run_made(client: Client, run: Path) -> None:
    facts = client.health()
    assert facts["run"] == "serving"
    assert facts["tasks"] == {
        "convert": "untrained",
        "analyze": "untrained",
        "verify": "published",
        "separate": "trained",
    }
    assert facts["method"] == "knn-eta-source"
    for name in ("conversion", "verification", "separation"):
        made = run / "results/serving" / name / "metrics.tsv"
        assert (run / BUNDLE / "metrics" / f"{name}.tsv").read_bytes() == made.read_bytes()
    assert planned(run, CONFIG, f"{BUNDLE}/config.json") == {}


def test_it_converts_as_the_library_does(client: Client, run: Path, tmp_path: Path) -> None:
    manifest = read_manifest(run / "results/serving/manifests/mini.tsv")
    source, *others = (run / path for path in manifest["path"])
    references = [path for path, row in zip(others, manifest["speaker_id"][1:], strict=True)]
    references = references[-2:]
    done = client.convert(source, references, tmp_path / "out.wav")
    assert (done.method, done.weights) == ("knn-eta-source", "untrained")
    converter = VoiceConverter.from_pretrained(run / BUNDLE)
    expected = converter.convert(
        read_audio(source), [read_audio(path) for path in references], method="knn-eta-source"
    )
    expected /= max(1.0, np.abs(expected).max())
    found = read_audio(tmp_path / "out.wav")
    assert len(found) == len(read_audio(source))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_it_verifies_as_the_run_did(client: Client, run: Path) -> None:
    folder = run / "results/serving"
    manifest = read_manifest(folder / "manifests/mini-voices.tsv").set_index("utterance_id")
    scores = read_table(
        folder / "verification/resemblyzer-calibrated/mini-test.tsv", ("target", "score")
    )
    asked = [scores[scores["target"] == target].iloc[0] for target in (1, 0)]
    for trial in asked:
        files = [run / manifest.loc[trial[name], "path"] for name in ("enrolment", "test")]
        found = client.verify(*files)
        assert found["score"] == pytest.approx(trial["score"], abs=1e-4)
        assert found["same_speaker"] == (trial["score"] >= found["threshold"])


def test_it_separates_as_the_run_did(client: Client, run: Path, tmp_path: Path) -> None:
    mixtures = run / "results/serving/mixtures/mini-clean/test"
    mixture = sorted((mixtures / "audio").rglob("mix_clean/*.wav"))[0]
    found = client.separate(mixture, tmp_path / "sources")
    assert [path.name for path in found] == ["source1.wav", "source2.wav"]
    estimates = run / "results/serving/separation/sepformer/mini-clean"
    stored = sorted(path for path in estimates.rglob("*.wav") if path.stem == mixture.stem)
    ours = np.stack([soundfile.read(path)[0] for path in found])
    theirs = np.stack([soundfile.read(path)[0] for path in stored])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_its_page_says_what_it_was_made_of(run: Path) -> None:
    card = (run / BUNDLE / "README.md").read_text(encoding="utf-8")
    verifier = json.loads((run / BUNDLE / "verifier/verifier.json").read_text(encoding="utf-8"))
    assert f"{verifier['trials']['eer']:.2f} %" in card
    assert "etaflow serve" in card

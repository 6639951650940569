"""`scripts/train_speaker_encoder.py`, from a manifest to an encoder that loads."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from etaflow.audio import read_audio, write_audio
from etaflow.manifest import read_table
from etaflow.models import read_model_info
from etaflow.speaker import load_speaker_encoder
from etaflow.store import Embeddings
from tests.conftest import ROOT
from tests.launch_tools import processes
from tests.speaker_tools import CONFIG, make_corpus, python, training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), speakers=9, utterances=3).parent


def run(command: list[str], fails: bool = False) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr


def trained(corpus: Path, output: Path, *options: Any, **changes: Any) -> str:
    return run(python(*training(corpus, output, {**CONFIG, **changes}, *options)))


def test_an_encoder_is_trained_and_saved_as_a_model(corpus: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4_000).astype(np.float32)
    write_audio(tmp_path / "noise" / "n.wav", noise)
    added = {"noise": {"folder": str(tmp_path / "noise"), "snr": [5, 15], "probability": 0.5}}
    options = ("--tracker", "tensorboard", "--tracker-dir", tmp_path / "logs")
    crop = {"utterances": 4, "crop_seconds": 0.4, "augmentation": added}
    said = trained(corpus, tmp_path, *options, **crop)
    assert "15 utterances of 5 speakers to train on, 29 trials of 3 others" in said
    assert "5 of 5 training speakers have fewer than 4 utterances" in said
    assert "15 of 15 training utterances are shorter than 0.4 s and are repeated" in said
    assert "kept the weights of step 4 of 4\n" in said
    folder = tmp_path / "encoder"
    info, _ = read_model_info(folder)
    assert (info.name, info.source, info.weights) == ("encoder", "run", "trained")
    assert json.loads((folder / "config.json").read_text())["step"] == 4
    metrics = read_table(folder / "metrics.tsv", numbers=("step",))
    assert metrics.loc[metrics["metric"] == "valid/eer", "step"].tolist() == [0, 2, 4]
    embeddings = Embeddings.read(folder / "validation.h5")
    assert (embeddings.encoder, embeddings.weights) == ("encoder", "trained")
    held_out = sorted(set(embeddings.speaker_ids))
    assert len(held_out) == 3
    assert "s0" not in held_out  # of the test split
    assert len(embeddings.utterance_ids) == 9
    encoder = load_speaker_encoder(folder)
    first = encoder.embed([read_audio(corpus / f"{embeddings.utterance_ids[0]}.wav")])
    np.testing.assert_allclose(first[0], embeddings.vectors[0], atol=1e-5)
    assert not (tmp_path / "work").exists()
    assert len(list((tmp_path / "logs").glob("events.out.tfevents.*"))) == 1


def test_speakers_of_two_corpora_are_other_people(corpus: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "other", speakers=9, utterances=3)
    (tmp_path / "second.recordings.tsv").write_bytes(other.read_bytes())
    given = ("--manifest", tmp_path / "second.recordings.tsv")
    said = trained(corpus, tmp_path, *given, steps=0)
    assert "39 utterances of 13 speakers to train on" in said
    names = Embeddings.read(tmp_path / "encoder" / "validation.h5").speaker_ids
    first = next(corpus.glob("*.tsv")).name.split(".")[0]
    assert {name.split("/")[0] for name in names} <= {first, "second"}
    assert all(name.split("/")[1].startswith("s") for name in names)


def test_untrained_tuned_and_early_ended_encoders_say_so(corpus: Path, tmp_path: Path) -> None:
    trained(corpus, tmp_path / "none", steps=0)
    base = tmp_path / "none" / "encoder"
    assert read_model_info(base)[0].weights == "untrained"
    tuned = {"network": {"pretrained": "none"}, "trained_layers": 1}
    given = ("--model", base / "model.json")
    said = trained(corpus, tmp_path / "tuned", *given, **tuned)
    assert "kept the weights of step 4" in said
    # Frozen layers are those of an untrained model.
    info, _ = read_model_info(tmp_path / "tuned" / "encoder")
    assert info.weights == "untrained"
    assert info.revision != read_model_info(base)[0].revision
    states = [load_file(f / "encoder.safetensors") for f in (base, tmp_path / "tuned" / "encoder")]
    changed = {key for key in states[0] if not states[0][key].equal(states[1][key])}
    assert changed
    assert all(".fc." in key for key in changed)
    trained(corpus, tmp_path / "whole", *given, **{**tuned, "trained_layers": None})
    whole = tmp_path / "whole" / "encoder"
    assert read_model_info(whole)[0].weights == "trained"
    # As it came: no steps, or all of them for the worse.
    trained(corpus, tmp_path / "same", "--model", whole / "model.json", **tuned, steps=0)
    same = read_model_info(tmp_path / "same" / "encoder")[0]
    assert (same.weights, same.revision) == ("trained", read_model_info(whole)[0].revision)
    ended = {"keep": "best", "patience": 1, "validate_every": 1, "trained_layers": 0}
    said = trained(corpus, tmp_path / "ended", *given, **{**tuned, **ended})
    assert "kept the weights of step 0 of 4, ended at 1: 1 validations brought no better" in said


def test_epochs_are_passes_over_the_utterances(corpus: Path, tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "steps"}
    done = run(python(*training(corpus, tmp_path, {**config, "epochs": 0.7})))
    assert "; 2 steps\n" in done  # ceil(0.7 * 15 / (4 * 2))
    said = run(python(*training(corpus, tmp_path, config)), fails=True)
    assert "either steps or epochs" in said
    held = {"speakers": 8, "nontargets": 4, "max_seconds": None}
    said = run(python(*training(corpus, tmp_path, {**CONFIG, "validation": held})), fails=True)
    assert "cannot hold 8 of 8 speakers out of training" in said


def test_two_processes_train_an_encoder(corpus: Path, tmp_path: Path) -> None:
    config = {**CONFIG, "loss": {"kind": "ge2e"}, "speakers": 6}
    said = run(processes(2, *training(corpus, tmp_path, config)))
    assert said.count("kept the weights of step 4 of 4\n") == 1
    assert said.count("utterances of 5 speakers to train on") == 1
    said = run(processes(2, *training(corpus, tmp_path, {**config, "speakers": 4})), fails=True)
    assert "2 speaker(s) a batch and process; this loss needs 3" in said


def test_margins_in_two_processes_are_learnt_as_in_one(corpus: Path, tmp_path: Path) -> None:
    manifest, histories = corpus / "manifest.tsv", []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        run(processes(count, "-m", "tests.speaker_tools", manifest, folder))
        histories.append(json.loads((folder / "0.json").read_text()))
    assert json.loads((tmp_path / "2" / "1.json").read_text()) is None
    one, two = ([row[:2] for row in history] for history in histories)
    assert one == two
    assert one[-1][0] < 8  # patience ends it, in both processes
    values = [[row[2] for row in history] for history in histories]
    assert values[0] == pytest.approx(values[1], rel=1e-3)

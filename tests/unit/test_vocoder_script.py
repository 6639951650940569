"""`scripts/train_vocoder.py`, from features to a vocoder that loads."""

import json
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch

from etaflow.eta import EtaError, EtaFeatures, EtaModel
from etaflow.fetching import fetch_model
from etaflow.manifest import read_manifest, read_table, write_manifest
from etaflow.store import Embeddings, FeatureMeta, FeatureStore, FeatureWriter, StoreError
from etaflow.vocoder import Generator, GeneratorConfig, IstftConfig, VocoderError, read_config
from etaflow.vocoder.pretrained import read_start
from tests.vocoder_tools import CONFIG, NAMES, make_data, python, training

FACTS = {"model": "tiny", "revision": "rev", "layer": 2, "normalize": True}


def eta_model(**changes: object) -> EtaModel:
    random = np.random.default_rng(1)
    config = {**FACTS, "encoder": "encoder", **changes}
    return EtaModel(random.normal(size=(3, 5)), random.normal(size=5), np.zeros(5), None, config)


@pytest.mark.slow
def test_train_vocoder_writes_a_vocoder_and_clears_its_working_state(tmp_path: Path) -> None:
    make_data(tmp_path)
    logs = tmp_path / "logs"
    options = ("--tracker", "tensorboard", "--tracker-dir", logs)
    done = run(
        python(*training(tmp_path, tmp_path, CONFIG, *options)),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "1 of 3 training utterances are shorter than a segment of 6 frames" in done.stderr
    generator = Generator.from_pretrained(tmp_path / "vocoder")
    assert generator(torch.zeros(1, 2, 5)).shape == (1, 1, 640)
    step = generator.trained_on["step"]
    facts = {**FACTS, "weights": "untrained", "step": step, "features": "raw"}
    assert generator.trained_on == facts
    assert step in (0, 2, 3)
    metrics = read_table(tmp_path / "vocoder" / "metrics.tsv", numbers=("step",))
    distances = metrics[metrics["metric"] == "valid/mel_distance"]
    assert distances["step"].tolist() == [0, 2, 3]
    assert {"train/matching_loss", "train/discriminator_gradient_norm"} <= set(metrics["metric"])
    assert not (tmp_path / "work").exists()
    assert len(list(logs.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_a_vocoder_of_eta_features_says_of_which(tmp_path: Path) -> None:
    make_data(tmp_path)
    eta_model(weights="published").save_pretrained(tmp_path / "eta")
    config = {**CONFIG, "features": "eta", "eta": "mine", "steps": 1}
    options = ("--eta", tmp_path / "eta", "--embeddings", tmp_path / "embeddings.h5")
    run(python(*training(tmp_path, tmp_path, config, *options)), check=True, capture_output=True)
    trained_on = Generator.from_pretrained(tmp_path / "vocoder").trained_on
    assert (trained_on["features"], trained_on["eta"]) == ("eta", "mine")
    assert trained_on["weights"] == "untrained"
    assert trained_on["eta_digest"] == eta_model().digest
    done = run(
        python(*training(tmp_path, tmp_path, config)), check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "--embeddings" in done.stderr


@pytest.mark.slow
def test_raw_features_are_trained_on_beside_prematched_ones_of_several_corpora(
    tmp_path: Path,
) -> None:
    make_data(tmp_path)
    table = read_manifest(tmp_path / "manifest.tsv")
    meta = FeatureMeta("tiny", "rev", 2, True, 16_000, 320)
    # Of another corpus, whose one training utterance has no prematched features.
    name = table.loc[table["utterance_id"] == "a"].assign(utterance_id="alone")
    write_manifest(name, tmp_path / "other.tsv")
    frames = np.zeros((10, 5), np.float32)
    with FeatureWriter(tmp_path / "other.h5", meta, ["alone"], ["s"], [3280], [10], 5) as writer:
        writer.write("alone", frames)
    config = {**CONFIG, "features": "raw+prematched", "steps": 1, "validate_every": 1}
    also = ("--also", tmp_path / "0000.h5", "--also", tmp_path / "other.h5")
    job = training(tmp_path, tmp_path, config, "--manifest", tmp_path / "other.tsv", *also)
    done = run(python(*job), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # a, b, c and short twice but for the one held out, and alone.
    assert "2 of 7 training utterances are shorter" in done.stderr
    assert (
        Generator.from_pretrained(tmp_path / "vocoder").trained_on["features"] == config["features"]
    )
    done = run(python(*job[: -len(also)]), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "raw+prematched goes with --also" in done.stderr


def test_eta_features_are_the_stored_ones_without_each_utterances_speaker(tmp_path: Path) -> None:
    make_data(tmp_path)
    shard, speakers = tmp_path / "0000.h5", Embeddings.read(tmp_path / "embeddings.h5")
    raw, eta = FeatureStore([shard]), eta_model()
    freed = EtaFeatures([shard], eta, speakers)
    for index, name in enumerate(NAMES):
        component = speakers.vectors[index].astype(float) @ eta.coefficients + eta.bias
        np.testing.assert_allclose(
            freed.read(name, 1, 3), raw.read(name)[1:3] - component, atol=1e-6
        )
    assert freed["a"].dtype == np.float32
    with pytest.raises(EtaError, match="fitted on layer 3, the features have 2"):
        EtaFeatures([shard], eta_model(layer=3), speakers)
    with pytest.raises(EtaError, match="fitted on encoder 'other', the features have 'encoder'"):
        EtaFeatures([shard], eta_model(encoder="other"), speakers)
    few = Embeddings(NAMES[1:], ["s"] * 4, speakers.vectors[1:], "encoder", "trained")
    with pytest.raises(StoreError, match="the first is a"):
        EtaFeatures([shard], eta, few)


def fetched(folder: Path, source: Path) -> Path:
    """A vocoder of a run as a model of the registry; returns its `model.json`."""
    entry = {"source": "path", "architecture": "etaflow-vocoder", "weights": "published"}
    fetch_model("given", {**entry, "path": str(source)}, folder)
    return folder / "model.json"


def given_generator(folder: Path, config: GeneratorConfig | IstftConfig, **changes: Any) -> Path:
    torch.manual_seed(7)
    facts = {**FACTS, "features": "raw", "weights": "trained", **changes}
    generator = Generator(config)
    if isinstance(config, IstftConfig):
        # As loud as the recordings, and with as flat a spectrum: no bad vocoder of noise.
        with torch.no_grad():
            magnitude, phase = generator.network.head.bias.chunk(2)
            magnitude.fill_(1.45)
            phase.uniform_(-3.14, 3.14)
    generator.save_pretrained(folder / "there", **facts)
    return fetched(folder / "given", folder / "there")


ISTFT = IstftConfig(5, hidden_dim=4, intermediate_dim=8, blocks=2, n_fft=640, upsample=2)
HIFIGAN = read_config({"feature_dim": 5, **CONFIG["generator"]})
FROM_GIVEN = {k: v for k, v in CONFIG.items() if k != "generator"} | {"start": "given"}


@pytest.mark.slow
@pytest.mark.parametrize("config", [ISTFT, HIFIGAN])
def test_a_training_goes_on_from_given_weights(
    tmp_path: Path, config: GeneratorConfig | IstftConfig
) -> None:
    make_data(tmp_path)
    start = given_generator(tmp_path, config, features="prematched", revision="another")
    # A rate at which one step changes next to nothing: the waveform is still the given one's.
    settings = FROM_GIVEN | {"steps": 1, "learning_rate": 1e-9, "ema": None}
    command = python(*training(tmp_path, tmp_path, settings, "--start", start))
    run(command, check=True, capture_output=True)
    tuned = Generator.from_pretrained(tmp_path / "vocoder")
    given = Generator.from_pretrained(tmp_path / "there")
    features = torch.randn(1, 9, 5)
    torch.testing.assert_close(tuned(features), given(features), atol=1e-5, rtol=0)
    assert tuned.config == config
    assert tuned.trained_on["start"] == "given"
    assert (tuned.trained_on["features"], tuned.trained_on["revision"]) == ("raw", "rev")
    # The features' SSL model is the worst of the path.
    assert tuned.trained_on["weights"] == "untrained"


@pytest.mark.slow
def test_a_training_that_makes_nothing_better_keeps_what_was_given(tmp_path: Path) -> None:
    make_data(tmp_path)
    info = tmp_path / "model" / "model.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"weights": "trained"}))
    start = given_generator(tmp_path, ISTFT)
    settings = FROM_GIVEN | {"steps": 1, "learning_rate": 10.0, "ema": None}
    command = python(*training(tmp_path, tmp_path, settings, "--start", start))
    run(command, check=True, capture_output=True)
    tuned = Generator.from_pretrained(tmp_path / "vocoder")
    given = Generator.from_pretrained(tmp_path / "there")
    assert (tuned.trained_on["step"], tuned.trained_on["weights"]) == (0, "published")
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, given.state_dict()[name])


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        (replace(ISTFT, feature_dim=6), {}, "features of dim 6; those to train on have dim 5"),
        (ISTFT, {"layer": 3}, "features of layer 3; those to train on have layer 2"),
        (ISTFT, {"normalize": False}, "features of normalize False; those"),
    ],
)
def test_other_features_than_the_given_ones_are_refused(
    tmp_path: Path, config: IstftConfig, changes: dict[str, Any], named: str
) -> None:
    start = given_generator(tmp_path, config, **changes)
    with pytest.raises(VocoderError, match=f"start: given was trained on {named}"):
        read_start(start.parent, 5, {"layer": 2, "normalize": True})


def test_given_weights_are_ready_to_train_and_labelled_by_the_worst(tmp_path: Path) -> None:
    start = given_generator(tmp_path, HIFIGAN, weights="untrained")
    generator, label = read_start(start.parent, 5, {"layer": 2, "normalize": True})
    assert label == "untrained"
    assert generator.training
    fresh = Generator(HIFIGAN)
    assert generator.state_dict().keys() == fresh.state_dict().keys()
    assert all(parameter.requires_grad for parameter in generator.parameters())

"""`scripts/train_vocoder.py`, from features to a vocoder that loads."""

from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch

from etaflow.eta import EtaError, EtaFeatures, EtaModel
from etaflow.manifest import read_table
from etaflow.store import Embeddings, FeatureStore, StoreError
from etaflow.vocoder import Generator
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

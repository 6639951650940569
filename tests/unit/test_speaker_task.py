"""Training a speaker encoder, on speakers that two linear layers can tell apart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from etaflow.manifest import read_manifest
from etaflow.metrics import equal_error_rate, min_dcf
from etaflow.schedule import rate
from etaflow.speaker.network import embed
from etaflow.speaker.task import Validation
from etaflow.training import TrainingError
from tests.speaker_tools import (
    HELD_OUT,
    TwoLayers,
    make_corpus,
    make_task,
    run_task,
    trials_of,
    waveforms_of,
)
from tests.training_tools import equal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_manifest(make_corpus(tmp_path_factory.mktemp("corpus"), speakers=30))


@pytest.mark.parametrize("kind", ["ge2e", "bce_pairs", "am_softmax", "aam_softmax"])
def test_training_lowers_the_error_rate_of_speakers_it_never_heard(
    table: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    history = run_task(make_task(table, kind, 120), tmp_path, 120, keep="last")
    rates = [value for _, name, value in history if name == "valid/eer"]
    losses = [value for _, name, value in history if name == "train/loss"]
    assert rates[0] > 35
    assert rates[-1] < 0.6 * rates[0]
    assert losses[-1] < 0.7 * losses[0]


def test_validation_by_hand(table: pd.DataFrame) -> None:
    trials, waveforms, network = trials_of(table), waveforms_of(table), TwoLayers().eval()
    validation = Validation(trials, waveforms, max_seconds=0.1)
    vectors = validation.embed(network)
    assert validation.utterance_ids == sorted({*trials["enrolment"], *trials["test"]})
    assert len(validation.utterance_ids) == 20
    scores = []
    for _, trial in trials.iterrows():
        one, other = (
            embed(network, [waveforms.read(trial[side])[:1_600]])[0].astype(float)
            for side in ("enrolment", "test")
        )
        scores.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    expected = {
        "eer": 100 * equal_error_rate(scores, trials["target"])[0],
        "min_dcf_0.01": min_dcf(scores, trials["target"], 0.01),
    }
    assert validation.metrics(vectors) == pytest.approx(expected, abs=1e-4)
    network.shortest = 1_601
    with pytest.raises(ValueError, match=r"validation utterance s1-0: 1600 samples.* needs 1601"):
        validation.embed(network)


def test_a_killed_training_ends_with_the_same_bits(table: pd.DataFrame, tmp_path: Path) -> None:
    options = {"steps": 12, "validate_every": 4, "ema": 0.9, "precision": "bfloat16"}
    whole, cut, resumed = (make_task(table, "ge2e", 12) for _ in range(3))
    history = run_task(whole, tmp_path / "whole", **options)
    cut.fail_at = 7
    with pytest.raises(KeyboardInterrupt):
        run_task(cut, tmp_path / "cut", **options)
    assert run_task(resumed, tmp_path / "cut", **options) == history
    files = [tmp_path / name / "f" / "checkpoint-12.pt" for name in ("whole", "cut")]
    assert equal(*(torch.load(file, weights_only=True) for file in files))
    assert equal(whole.modules["encoder"].state_dict(), resumed.modules["encoder"].state_dict())


def test_layers_learn_at_their_own_rates_and_frozen_ones_not_at_all(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    network = TwoLayers()
    network.pretrained = 1
    task = make_task(table, steps=10, network=network, rates=(1e-3, 1e-2))
    given: list[list[float]] = []
    optimizer = task.optimizers["encoder"]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    assert sizes == [2, 2, 1]
    optimizer.register_step_pre_hook(lambda o, *_: given.append([g["lr"] for g in o.param_groups]))
    run_task(task, tmp_path / "all", 10)
    for step, lrs in enumerate(given):
        factor = rate(step, 10, 5, "cosine")
        assert lrs == pytest.approx([1e-3 * factor, 1e-2 * factor, 1e-2 * factor])
    assert len(given) == 10
    AcceleratorState._reset_state()

    frozen = TwoLayers()
    frozen.pretrained = 1
    frozen.freeze(0)
    before = [each.clone() for each in frozen.parameters()]
    task = make_task(table, steps=10, network=frozen)
    assert [len(group["params"]) for group in task.optimizers["encoder"].param_groups] == [2, 1]
    run_task(task, tmp_path / "frozen", 10, keep="last")
    same = [torch.equal(*pair) for pair in zip(before, frozen.parameters(), strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize(("kind", "decay"), [("ge2e", 0.0), ("am_softmax", 0.1)])
def test_scale_and_offset_do_not_decay(table: pd.DataFrame, kind: str, decay: float) -> None:
    groups = make_task(table, kind, weight_decay=0.1).optimizers["encoder"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, decay]


def test_what_does_not_fit_is_named(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"2 speaker\(s\) a batch and process; this loss needs 3"):
        make_task(table, "ge2e", batch_size=2)
    assert make_task(table, "am_softmax", batch_size=1).batch_size == 1
    network = TwoLayers()
    network.shortest = 3_201
    with pytest.raises(ValueError, match="crops of 3200 samples; the encoder needs 3201"):
        make_task(table, network=network)
    for loss in ("ge2e", "aam_softmax"):
        with pytest.raises(ValueError, match="1 speaker to train on; a loss compares two"):
            make_task(table[table["speaker_id"].isin([*HELD_OUT, "s9"])], loss)


def test_three_rows_of_shuffled_epochs_are_never_all_one_speaker() -> None:
    from etaflow.training.batches import Batches

    for size in (2, 3, 4, 7):
        for batch in Batches(size, 3, 0, 0, 400):
            assert len({index for index, _ in batch}) > 1


def test_a_loss_that_is_not_finite_names_the_utterances(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    task = make_task(table, rates=(1e-3, float("inf")))
    with pytest.raises(TrainingError, match=r"not finite.*Utterances of the batch: .*s\d+-\d s\d"):
        run_task(task, tmp_path)

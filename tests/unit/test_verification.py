import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.metrics import act_dcf, cllr, equal_error_rate, min_dcf
from etaflow.store import Embeddings, StoreError
from etaflow.trials import TrialsError, generate_trials, speakers_of
from etaflow.verification import (
    Calibration,
    Cohort,
    as_norm,
    average_scores,
    cosine_scores,
    pair_quality,
    require_strangers,
    verification_metrics,
)


def corpus(speakers=6, utterances=4, dim=8, split="test", seed=0):
    """A manifest and embeddings in which the recordings of a speaker are alike."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        [
            (f"{split}{s}-{u}", f"{split}{s}", str(u), split, 16_000 * (1 + u), 16_000)
            for s in range(speakers)
            for u in range(utterances)
        ],
        columns=[
            "utterance_id", "speaker_id", "session_id", "split", "num_samples", "sample_rate"
        ],
    )  # fmt: skip
    voices = rng.normal(size=(speakers, dim)).repeat(utterances, axis=0)
    vectors = (voices + rng.normal(size=voices.shape)).astype(np.float32)
    ids, names = list(table["utterance_id"]), list(table["speaker_id"])
    return table, Embeddings(ids, names, vectors, "toy", "untrained")


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def pairwise(trials, embeddings):
    by_id = dict(zip(embeddings.utterance_ids, embeddings.vectors.astype(float), strict=True))
    rows = zip(trials["enrolment"], trials["test"], strict=True)
    return np.array([cosine(by_id[one], by_id[other]) for one, other in rows])


def test_scores_are_the_cosines_of_each_pair(monkeypatch):
    table, embeddings = corpus()
    trials = generate_trials(table, None, None).sample(frac=1, random_state=0)
    expected = pairwise(trials, embeddings)
    np.testing.assert_allclose(cosine_scores(trials, embeddings), expected, atol=1e-6)
    monkeypatch.setattr("etaflow.verification.scores.BLOCK", 7)
    np.testing.assert_allclose(cosine_scores(trials, embeddings), expected, atol=1e-6)


def test_scores_need_an_embedding_with_a_direction():
    table, embeddings = corpus()
    trials = generate_trials(table, None, None)
    embeddings.vectors[3] = 0
    with pytest.raises(TrialsError, match="zero have no cosine: test0-3"):
        cosine_scores(trials, embeddings)
    with pytest.raises(StoreError, match="1 utterance"):
        cosine_scores(trials.head(1).assign(test="nobody"), embeddings)


def plain_as_norm(trials, embeddings, cohort, topk):
    owner = dict(zip(embeddings.utterance_ids, embeddings.speaker_ids, strict=True))
    by_id = dict(zip(embeddings.utterance_ids, embeddings.vectors.astype(float), strict=True))

    def normalised(score, name):
        rows = zip(cohort.speakers, cohort.vectors, strict=True)
        others = sorted(cosine(by_id[name], mean) for who, mean in rows if who != owner[name])
        return (score - np.mean(others[-topk:])) / np.std(others[-topk:])

    scores = []
    for one, other in zip(trials["enrolment"], trials["test"], strict=True):
        score = cosine(by_id[one], by_id[other])
        scores.append((normalised(score, one) + normalised(score, other)) / 2)
    return np.array(scores)


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_normalisation_is_that_of_its_definition(monkeypatch, block):
    monkeypatch.setattr("etaflow.verification.normalisation.BLOCK", block)
    table, embeddings = corpus()
    trials = generate_trials(table, 20, 40)
    cohort = Cohort.of_training(*reversed(corpus(12, 3, split="train", seed=1)))
    scores = cosine_scores(trials, embeddings)
    normalised = as_norm(trials, scores, embeddings, cohort, topk=5)
    expected = plain_as_norm(trials, embeddings, cohort, 5)
    np.testing.assert_allclose(normalised, expected, rtol=2e-4, atol=1e-4)


def test_an_utterance_does_not_meet_its_own_speaker_in_the_cohort():
    table, embeddings = corpus(8, split="train")
    trials = generate_trials(table, 10, 10)
    cohort = Cohort.of_training(embeddings, table)
    assert cohort.speakers == [f"train{s}" for s in range(8)]
    np.testing.assert_allclose(np.linalg.norm(cohort.vectors, axis=1), 1, rtol=1e-6)
    normalised = as_norm(trials, cosine_scores(trials, embeddings), embeddings, cohort, 7)
    expected = plain_as_norm(trials, embeddings, cohort, 7)
    np.testing.assert_allclose(normalised, expected, rtol=2e-4, atol=1e-4)
    with pytest.raises(TrialsError, match=r"8 nearest of a cohort of 7 speaker\(s\)"):
        as_norm(trials, cosine_scores(trials, embeddings), embeddings, cohort, 8)


def test_a_cohort_that_says_nothing_is_refused():
    table, embeddings = corpus()
    trials = generate_trials(table, 5, 5)
    scores = cosine_scores(trials, embeddings)
    with pytest.raises(TrialsError, match="no training split"):
        Cohort.of_training(embeddings, table)
    same = Cohort(["a", "b", "c"], np.ones((3, 8), np.float32))
    with pytest.raises(TrialsError, match="do not differ"):
        as_norm(trials, scores, embeddings, same, 2)
    with pytest.raises(TrialsError, match="topk must be 2 or more"):
        as_norm(trials, scores, embeddings, same, 1)


def gaussian_trials(count, seed=0):
    """Scores of which the log-likelihood ratio is known: 2 s - 2 for means 0 and 2 and width 1."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 == 0).astype(int)
    return rng.normal(2.0 * labels), labels


NONE = pd.DataFrame(index=range(40_000))


def test_calibration_finds_the_log_likelihood_ratio_of_gaussians():
    scores, labels = gaussian_trials(40_000)
    calibration = Calibration.fit(scores, labels, NONE, {"trials": "toy"})
    assert calibration.weights[0] == pytest.approx(2, rel=0.04)
    assert calibration.bias == pytest.approx(-2, rel=0.05)
    assert calibration.fitted_on == {"trials": "toy", "targets": 10_000, "nontargets": 30_000}
    fresh, truth = gaussian_trials(40_000, seed=1)
    llrs = calibration.llrs(fresh, NONE)
    assert cllr(llrs, truth) == pytest.approx(cllr(2 * fresh - 2, truth), abs=2e-3)
    assert act_dcf(llrs, truth, 0.05) <= min_dcf(llrs, truth, 0.05) + 0.03


def test_quality_of_the_recordings_makes_calibration_better():
    rng = np.random.default_rng(5)
    scores, labels = gaussian_trials(20_000)
    quality = pd.DataFrame({"duration_min": rng.normal(size=20_000)})
    shifted = scores + 3 * quality["duration_min"]  # long recordings score high, whoever speaks
    with_it = Calibration.fit(shifted, labels, quality, {})
    without = Calibration.fit(shifted, labels, quality[[]], {})
    assert with_it.weights == (pytest.approx(2, rel=0.1), pytest.approx(-6, rel=0.1))
    assert cllr(with_it.llrs(shifted, quality), labels) < 0.6
    assert cllr(without.llrs(shifted, quality[[]]), labels) > 0.85


def test_calibration_comes_back_from_its_file(tmp_path):
    scores, labels = gaussian_trials(100)
    quality = pd.DataFrame({"duration_min": np.arange(100.0)})
    calibration = Calibration.fit(scores, labels, quality, {"trials": "toy", "as_norm": None})
    calibration.write(tmp_path / "c.json")
    back = Calibration.read(tmp_path / "c.json")
    assert back == calibration
    np.testing.assert_array_equal(back.llrs(scores, quality), calibration.llrs(scores, quality))
    with pytest.raises(TrialsError, match=r"fitted on .*duration_min"):
        back.llrs(scores, quality[[]])
    stored = json.loads((tmp_path / "c.json").read_text())
    for broken in ({}, stored | {"weights": [1]}, stored | {"bias": "x"}, []):
        (tmp_path / "bad.json").write_text(json.dumps(broken))
        with pytest.raises(TrialsError, match=r"bad\.json: no calibration"):
            Calibration.read(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("scores", "labels", "quality", "reason"),
    [
        ([1, 2], [1, 1], {}, "both classes"),
        ([1, 1], [0, 1], {}, "by score: it is not finite, or the same"),
        ([1, np.nan], [0, 1], {}, "by score"),
        ([1, 2], [0, 1], {"norm_min": [3, 3]}, "by norm_min"),
        ([1, 2], [0, 1], {"norm_min": [1, 1 + 1.2e-7]}, "by norm_min"),
    ],
)
def test_calibration_refuses_what_teaches_nothing(scores, labels, quality, reason):
    with pytest.raises(TrialsError, match=reason):
        Calibration.fit(scores, labels, pd.DataFrame(quality, index=range(2)), {})


def test_quality_measures_of_pairs():
    table, embeddings = corpus(2, 3)
    trials = pd.DataFrame(
        {"enrolment": ["test0-2", "test1-0"], "test": ["test0-1", "test0-2"], "target": [1, 0]}
    )
    lengths = dict(
        zip(embeddings.utterance_ids, np.linalg.norm(embeddings.vectors, axis=1), strict=True)
    )
    quality = pair_quality(["duration", "norm"], trials, embeddings, table)
    assert list(quality) == ["duration_min", "norm_min", "norm_mean"]
    np.testing.assert_allclose(quality["duration_min"], np.log([2, 1]))
    pairs = np.array(
        [[lengths["test0-2"], lengths["test0-1"]], [lengths["test1-0"], lengths["test0-2"]]]
    )
    np.testing.assert_allclose(quality["norm_min"], pairs.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(quality["norm_mean"], pairs.mean(axis=1), rtol=1e-6)
    assert pair_quality([], trials, embeddings, table).shape == (2, 0)
    heard = pair_quality(["duration"], trials, embeddings, table, max_seconds=1.5)
    np.testing.assert_allclose(heard["duration_min"], np.log([1.5, 1]))
    with pytest.raises(TrialsError, match="no quality measure 'snr'; there are duration, norm"):
        pair_quality(["snr"], trials, embeddings, table)


def test_averages_are_of_the_same_trials():
    table, _ = corpus(3, 2)
    one = generate_trials(table, 2, 3).assign(score=[0.0, 1, 2, 3, 4])
    other = one.assign(score=[2.0, 2, 2, 2, 2])
    assert list(average_scores([one, other])["score"]) == [1, 1.5, 2, 2.5, 3]
    with pytest.raises(TrialsError, match="table 1 has 5, table 2 has 4"):
        average_scores([one, other.head(4)])
    with pytest.raises(TrialsError, match=r"trial 1 is .* in table 2"):
        average_scores([one, other.iloc[::-1]])
    with pytest.raises(TrialsError, match="no scores"):
        average_scores([])


def test_speakers_who_took_part_are_named():
    require_strangers(["a", "b"], ["c"], "the cohort")
    with pytest.raises(TrialsError, match=r"2 speaker.* also in the cohort: a, b;"):
        require_strangers(["b", "a", "c"], ["b", "a", "x"], "the cohort")


def metrics_of(trials, scores, speakers, **options):
    options = {"weights": "untrained", "calibrated": True, "rounds": 50} | options
    table = verification_metrics(("sys", "toy"), scores, trials["target"], speakers, **options)
    return table.set_index("metric")


def test_metrics_are_those_of_the_trials():
    table, embeddings = corpus(10)
    trials = generate_trials(table, None, None)
    scores, labels = cosine_scores(trials, embeddings), trials["target"]
    found = metrics_of(trials, scores, speakers_of(trials, table))
    expected = {
        "eer": 100 * equal_error_rate(scores, labels)[0],
        "min_dcf_0.01": min_dcf(scores, labels, 0.01),
        "min_dcf_0.05": min_dcf(scores, labels, 0.05),
        "act_dcf_0.01": act_dcf(scores, labels, 0.01),
        "act_dcf_0.05": act_dcf(scores, labels, 0.05),
        "cllr": cllr(scores, labels),
    }
    assert dict(found["value"]) == {k: pytest.approx(v, abs=1e-4) for k, v in expected.items()}
    assert set(found["system"]) == {"sys"}
    assert set(found["trials"]) == {"toy"}
    assert set(found["n"]) == {len(trials)}
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    plain = metrics_of(trials, scores, speakers_of(trials, table), calibrated=False)
    assert list(plain.index) == ["eer", "min_dcf_0.01", "min_dcf_0.05"]


@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_intervals_draw_speakers_with_all_their_trials(seed):
    """Against samples written out: each speaker's copies are people of their own."""
    table, embeddings = corpus(5, 3, seed=seed)
    trials = generate_trials(table, None, None)
    scores, speakers = cosine_scores(trials, embeddings), speakers_of(trials, table)
    found = metrics_of(trials, scores, speakers, seed=seed, rounds=20)
    generator = np.random.default_rng(seed)
    names = sorted(set(speakers.ravel()))
    rates = []
    for _ in range(20):
        drawn = [names[i] for i in generator.integers(0, 5, 5)]
        sample = [
            (score, target)
            for score, target, (one, other) in zip(scores, trials["target"], speakers, strict=True)
            for times in [drawn.count(one) * (1 if target else drawn.count(other))]
            for _ in range(times)
        ]
        if {target for _, target in sample} == {0, 1}:
            rates.append(100 * equal_error_rate(*zip(*sample, strict=True))[0])
    low, high = np.percentile(rates, [2.5, 97.5])
    assert found.loc["eer", "low"] == pytest.approx(low, abs=1e-4)
    assert found.loc["eer", "high"] == pytest.approx(high, abs=1e-4)

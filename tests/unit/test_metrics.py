import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from etaflow.metrics import (
    act_dcf,
    bootstrap_interval,
    character_errors,
    cllr,
    detection_error_curve,
    equal_error_rate,
    min_dcf,
    normalize_english,
    normalize_text,
    si_snr,
    word_errors,
)

# Few distinct values, so that ties are common.
trials = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


def swept_curve(scores, labels):
    """Error rates at each threshold, counted trial by trial."""
    thresholds = [*sorted(set(scores)), np.inf]
    others, targets = labels.count(0), labels.count(1)
    accept = [
        sum(s >= t for s, y in zip(scores, labels, strict=True) if not y) / others
        for t in thresholds
    ]
    reject = [
        sum(s < t for s, y in zip(scores, labels, strict=True) if y) / targets for t in thresholds
    ]
    return accept, reject, thresholds


@given(trials)
def test_curve_and_rate_agree_with_a_sweep_and_with_scikit_learn(pairs):
    scores, labels = [float(s) for s, _ in pairs], [int(y) for _, y in pairs]
    accept, reject, thresholds = detection_error_curve(scores, labels)
    for ours, swept in zip((accept, reject, thresholds), swept_curve(scores, labels), strict=True):
        np.testing.assert_allclose(ours, swept, atol=1e-12)
    rate, threshold = equal_error_rate(scores, labels)
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    # A vertical piece of the curve is climbed all at once: parametrise by arc instead of by x.
    arc = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    at = brentq(lambda s: 1 - np.interp(s, arc, y) - np.interp(s, arc, x), 0, arc[-1])
    assert rate == pytest.approx(np.interp(at, arc, x), abs=1e-9)
    assert min(scores) <= threshold <= max(scores)


@given(trials, st.data())
def test_weights_count_as_repeated_trials(pairs, data):
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    repeated = [pair for pair, n in zip(pairs, counts, strict=True) for _ in range(n)]
    if len({label for _, label in repeated}) < 2:
        with pytest.raises(ValueError, match="one class only"):
            equal_error_rate(*zip(*pairs, strict=True), weights=counts)
        return
    weighted, _ = equal_error_rate(*zip(*pairs, strict=True), weights=counts)
    plain, _ = equal_error_rate(*zip(*repeated, strict=True))
    assert weighted == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize(
    ("others", "targets", "rate", "threshold"),
    [
        ([0, 1], [2, 3], 0, 2),
        ([2, 3], [0, 1], 1, 2),
        ([1, 1], [1, 1], 0.5, 1),
        ([0, 2], [1, 3], 0.5, 2),
        ([0, 1, 2, 3], [2, 3, 4, 5], 0.25, 3),
    ],
)
def test_equal_error_rate_of_known_trials(others, targets, rate, threshold):
    labels = [0] * len(others) + [1] * len(targets)
    assert equal_error_rate(others + targets, labels) == (pytest.approx(rate), threshold)


def test_equal_error_rate_of_two_gaussians():
    rng = np.random.default_rng(0)
    labels = np.arange(200_000) % 2
    rate, threshold = equal_error_rate(rng.normal(2.0 * labels), labels)
    assert rate == pytest.approx(0.15866, abs=0.003)  # 1 - Phi(1)
    assert threshold == pytest.approx(1.0, abs=0.02)


@given(trials, st.floats(0.01, 0.99))
def test_detection_costs_agree_with_a_sweep(pairs, p):
    scores, labels = [float(s) for s, _ in pairs], [int(y) for _, y in pairs]
    accept, reject, thresholds = swept_curve(scores, labels)
    costs = p * np.array(reject) + (1 - p) * np.array(accept)
    least = costs.min() / min(p, 1 - p)
    assert min_dcf(scores, labels, p) == pytest.approx(least, abs=1e-12)
    assert least <= 1 + 1e-12
    bayes = np.log((1 - p) / p)
    at = np.searchsorted(thresholds, bayes)  # the first threshold at or above
    actual = costs[at] / min(p, 1 - p)
    assert act_dcf(scores, labels, p) == pytest.approx(actual, abs=1e-12)


@given(trials)
def test_cllr_agrees_with_its_definition(pairs):
    bits = {
        side: np.mean([np.log2(1 + np.exp(-s if side else s)) for s, y in pairs if y == side])
        for side in (True, False)
    }
    assert cllr(*zip(*pairs, strict=True)) == pytest.approx(sum(bits.values()) / 2, abs=1e-12)


def test_costs_of_known_trials():
    labels = [0, 0, 1, 1]
    assert min_dcf([-9, -8, 8, 9], labels) == act_dcf([-9, -8, 8, 9], labels) == 0
    assert cllr([-900, -800, 800, 900], labels) == 0
    assert cllr([0, 0, 0, 0], labels) == pytest.approx(1, abs=1e-12)
    assert cllr([0] * 5, [1, 0, 0, 0, 0]) == pytest.approx(1, abs=1e-12)
    # All scores alike: rejecting all costs no more than what is known without them.
    assert min_dcf([3, 3, 3, 3], labels, 0.01) == 1
    assert min_dcf([3, 3, 3, 3], labels, 0.99) == pytest.approx(1)
    # LLRs of 3 are accepted at odds of 1 and rejected at odds of 99.
    assert act_dcf([3, 3, 3, 3], labels, 0.5) == 1
    assert act_dcf([5, 5, 5, 5], labels, 0.01) == pytest.approx(99)
    # One of four targets missed at the threshold where no other is accepted.
    scores, labels = [-1, 0, 1, 2, -2, -3], [1, 1, 1, 1, 0, 1]
    assert min_dcf(scores, labels, 0.01) == pytest.approx(1 / 5)
    assert act_dcf(scores, labels, 0.5) == pytest.approx(2 / 5)


@given(trials, st.data())
def test_weights_of_costs_count_as_repeated_trials(pairs, data):
    counts = data.draw(st.lists(st.integers(1, 3), min_size=len(pairs), max_size=len(pairs)))
    repeated = [pair for pair, n in zip(pairs, counts, strict=True) for _ in range(n)]
    for cost in (min_dcf, act_dcf, cllr):
        weighted = cost(*zip(*pairs, strict=True), weights=counts)
        assert weighted == pytest.approx(cost(*zip(*repeated, strict=True)), abs=1e-9)


@pytest.mark.parametrize("metric", [equal_error_rate, min_dcf, act_dcf, cllr])
def test_a_million_trials_take_about_a_second(metric):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=1_000_000), rng.integers(0, 2, 1_000_000)
    start = time.process_time()
    metric(scores, labels)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([], [], "no trials"),
        ([0.1, np.nan], [0, 1], "NaN"),
        ([0.1, np.inf], [0, 1], "infinite"),
        ([0.1, 0.2], [1, 1], "no non-target"),
        ([0.1, 0.2], [0, 0], "no target"),
        ([0.1, 0.2], [0, 1, 1], "one length"),
        ([[0.1, 0.2]], [[0, 1]], "one length"),
        ([0.1, 0.2], [1, 2], "labels must be"),
    ],
)
def test_bad_trials_are_refused(scores, labels, reason):
    for metric in (equal_error_rate, min_dcf, act_dcf, cllr):
        with pytest.raises(ValueError, match=reason):
            metric(scores, labels)


@pytest.mark.parametrize("p_target", [0, 1, -0.5, np.nan])
def test_priors_lie_between_0_and_1(p_target):
    for cost in (min_dcf, act_dcf):
        with pytest.raises(ValueError, match="p_target"):
            cost([0, 1], [0, 1], p_target)


@pytest.mark.parametrize("weights", [[1], [1, -1], [1, np.nan], [1, 0]])
def test_bad_weights_are_refused(weights):
    for metric in (equal_error_rate, min_dcf, act_dcf, cllr):
        with pytest.raises(ValueError, match=r"weights must be 2|no target \(1\)"):
            metric([0, 1], [0, 1], weights=weights)


def test_si_snr_is_the_projection_ratio_and_ignores_scale_and_offset():
    rng = np.random.default_rng(0)
    reference, noise = rng.normal(size=(2, 16_000))
    reference -= reference.mean()
    noise -= noise.mean()
    noise -= reference * (noise @ reference) / (reference @ reference)
    noise *= 0.1 * np.linalg.norm(reference) / np.linalg.norm(noise)
    assert si_snr(reference + noise, reference) == pytest.approx(20, abs=1e-6)
    assert si_snr(3 - 7 * (reference + noise), 2 * reference + 1) == pytest.approx(20, abs=1e-6)


@pytest.mark.parametrize(
    ("estimate", "reference", "reason"),
    [
        (np.ones(9), np.arange(9.0), "estimate is silent"),
        (np.arange(9.0), np.zeros(9), "reference is silent"),
        (np.arange(9.0), np.arange(8.0), "one length"),
        (np.array([np.nan, 1.0]), np.arange(2.0), "NaN"),
        (np.zeros((1, 9)), np.zeros((1, 9)), "one length"),
    ],
)
def test_si_snr_refuses_what_it_cannot_score(estimate, reference, reason):
    with pytest.raises(ValueError, match=reason):
        si_snr(estimate, reference)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Don\u2019t -- STOP,\tit's \u201cmid-day\u201d!\n", "don't stop it's mid day"),
        ("'Tis the dogs' 42 bones.", "tis the dogs 42 bones"),
        ("... ' --", ""),
        ("caf\u0065\u0301", "caf\u00e9"),
    ],
)
def test_normalize_text(text, expected):
    assert normalize_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Hale's TWENTY-two cats don\u2019t care.", "mister hale is 22 cats do not care"),
        ("Uh, we'll (laughs) pay five hundred pounds!", "we will pay £500"),
        ("caf\u0065\u0301, na\u00efve", "cafe naive"),
        ("... ' --", ""),
        ("colour", "colour"),  # no table of spellings
    ],
)
def test_english_is_normalised_as_whisper_does(text, expected):
    assert normalize_english(text) == expected


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, last = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, last[j] + 1, last[j - 1] + (x != y)))
    return row[-1]


words = st.lists(st.sampled_from(["a", "be", "cat", "its"]), max_size=8).map(" ".join)


@given(words, words)
def test_errors_are_edit_distances(reference, hypothesis):
    spoken = reference.split()
    assert word_errors(reference, hypothesis) == (
        edit_distance(spoken, hypothesis.split()),
        len(spoken),
    )
    assert character_errors(reference, hypothesis) == (
        edit_distance(reference, hypothesis),
        len(reference),
    )


def test_nothing_heard_is_all_deletions_and_punctuation_is_no_error():
    assert word_errors("Two words.", "") == (2, 2)
    assert word_errors("It's, so!", "it\u2019s so") == (0, 3)
    assert word_errors("twenty two mice", "22 mice") == (0, 2)


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(lambda i: values[i].mean(), 400, rounds=2000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert (low, high) == bootstrap_interval(lambda i: values[i].mean(), 400, rounds=2000)


def test_bootstrap_draws_each_group_on_its_own():
    drawn = []
    bootstrap_interval(lambda i: drawn.append(i) or 0.0, [2, 1, 3], rounds=200)
    table = np.array(drawn)
    assert [sorted(set(column)) for column in table.T] == [
        [0, 1],
        [0, 1],
        [2],
        [3, 4, 5],
        [3, 4, 5],
        [3, 4, 5],
    ]


def test_bootstrap_leaves_samples_without_a_figure_out():
    low, high = bootstrap_interval(lambda i: np.nan if i[0] else 7.0, 2)
    assert (low, high) == (7, 7)
    with pytest.raises(ValueError, match="none of the 5"):
        bootstrap_interval(lambda i: np.nan, 2, rounds=5)
    with pytest.raises(ValueError, match="nothing to draw"):
        bootstrap_interval(lambda i: 0.0, 0)

"""Ratios of separated signals, against their textbook definitions."""

import itertools

import fast_bss_eval
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import lstsq
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_noise_ratio,
    signal_distortion_ratio,
)

from etaflow.metrics import (
    mixture_sdr,
    mixture_si_snr,
    pit_si_snr,
    sdr,
    sdr_improvement,
    si_snr,
    si_snr_improvement,
)

Signals = npt.NDArray[np.float64]
TAPS = 512


def textbook_si_snr(estimate: Signals, reference: Signals) -> float:
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    noise = estimate - target
    return float(10 * np.log10((target @ target) / (noise @ noise)))


def textbook_sdr(estimate: Signals, reference: Signals) -> float:
    """Project on the 512 shifts of the reference, by least squares over all of them."""
    shifts = np.zeros((len(reference) + TAPS - 1, TAPS))
    for tap in range(TAPS):
        shifts[tap : tap + len(reference), tap] = reference
    padded = np.pad(estimate, (0, TAPS - 1))
    target = shifts @ lstsq(shifts, padded)[0]
    noise = padded - target
    return float(10 * np.log10((target @ target) / (noise @ noise)))


def textbook_best(metric, estimates: Signals, references: Signals) -> tuple[Signals, list[int]]:
    options = [
        (np.array([metric(estimates[e], references[r]) for r, e in enumerate(order)]), list(order))
        for order in itertools.permutations(range(len(references)))
    ]
    return max(options, key=lambda option: option[0].mean())


def separated(sources: int, size: int, seed: int = 0) -> tuple[Signals, Signals, Signals]:
    """Coloured references, their mixture, and estimates out of order, scaled, with leakage."""
    generator = np.random.default_rng(seed)
    references = np.cumsum(generator.normal(size=(sources, size)), axis=1)
    references = np.diff(references, n=1, axis=1, prepend=0) + 0.01 * references
    mixture = references.sum(axis=0) + generator.normal(0, 0.1, size)
    leaks = generator.uniform(0.02, 0.2, (sources, 1))
    estimates = references + leaks * mixture
    estimates *= generator.choice([-1, 1], (sources, 1)) * 10 ** generator.uniform(
        -3, 3, (sources, 1)
    )
    return estimates[generator.permutation(sources)], references, mixture


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1, 1e-8, 1e8])
def test_si_snr_of_permuted_and_scaled_estimates_is_the_textbooks(sources, scale):
    for seed in range(3):
        estimates, references, mixture = separated(sources, 2000, seed)
        values, permutation = pit_si_snr(scale * estimates, references / scale)
        expected, order = textbook_best(textbook_si_snr, estimates, references)
        assert values == pytest.approx(expected, abs=1e-3)
        assert permutation.tolist() == order
        base = [textbook_si_snr(mixture, reference) for reference in references]
        assert mixture_si_snr(scale * mixture, references) == pytest.approx(base, abs=1e-3)
        improvement = si_snr_improvement(estimates, references, scale * mixture)
        assert improvement == pytest.approx(expected - base, abs=1e-3)


@pytest.mark.parametrize("scale", [1, 1e-8, 1e8])
def test_sdr_of_permuted_and_scaled_estimates_is_the_textbooks(scale):
    estimates, references, mixture = separated(2, 1500, 1)
    values, permutation = sdr(scale * estimates, references / scale)
    expected, order = textbook_best(textbook_sdr, estimates, references)
    assert values == pytest.approx(expected, abs=1e-3)
    assert permutation.tolist() == order
    base = [textbook_sdr(mixture, reference) for reference in references]
    assert mixture_sdr(scale * mixture, references) == pytest.approx(base, abs=1e-3)
    improvement = sdr_improvement(estimates, references, scale * mixture)
    assert improvement == pytest.approx(expected - base, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 1000))
def test_the_order_of_estimates_changes_no_value(order, seed):
    estimates, references, _ = separated(3, 1200, seed)
    values, permutation = pit_si_snr(estimates, references)
    again, other = pit_si_snr(estimates[order], references)
    assert again == pytest.approx(values, abs=1e-9)
    assert np.array(order)[other].tolist() == permutation.tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 3), st.integers(0, 1000), st.sampled_from([1, 1e-6, 1e6]))
def test_values_are_those_of_fast_bss_eval(sources, seed, scale):
    """Scheibler's own program. Its SI-SDR is ours with `zero_mean`, and another without."""
    estimates, references, mixture = separated(sources, 1500, seed)
    estimates = estimates + np.abs(estimates).max(axis=1, keepdims=True)
    values, permutation = pit_si_snr(scale * estimates, references)
    expected, order = fast_bss_eval.si_sdr(references, estimates, zero_mean=True, return_perm=True)
    assert values == pytest.approx(expected, abs=1e-3)
    assert permutation.tolist() == order.tolist()
    assert values.min() > fast_bss_eval.si_sdr(references, estimates).max() + 1
    values, permutation = sdr(scale * estimates, references)
    expected, order = fast_bss_eval.sdr(references, estimates, return_perm=True)
    assert values == pytest.approx(expected, abs=1e-3)
    assert permutation.tolist() == order.tolist()
    base = fast_bss_eval.sdr(references, np.stack([mixture] * sources))
    assert mixture_sdr(mixture, references) == pytest.approx(base, abs=1e-3)
    # SIR and SAR there are of the permutation with the best SIR.
    if order.tolist() == fast_bss_eval.bss_eval_sources(references, estimates)[3].tolist():
        assert values == pytest.approx(
            fast_bss_eval.bss_eval_sources(references, estimates)[0], abs=1e-3
        )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_values_are_those_of_torchmetrics_permuted(sources, seed):
    estimates, references, _ = separated(sources, 1500, seed)
    for metric, theirs in (
        (pit_si_snr, scale_invariant_signal_noise_ratio),
        (sdr, signal_distortion_ratio),
    ):
        values, permutation = metric(estimates, references)
        pair = torch.from_numpy(estimates)[None], torch.from_numpy(references)[None]
        mean, best = permutation_invariant_training(*pair, theirs)
        assert permutation.tolist() == best[0].tolist()
        assert values.mean() == pytest.approx(mean.item(), abs=1e-3)
        each = theirs(pair[0][0, best[0]], pair[1][0])
        assert values == pytest.approx(each.numpy(), abs=1e-3)


def test_the_permutation_is_that_of_the_best_mean_not_of_the_best_single_value():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 4000))
    # The second estimate is the better one of both references, but only one may have it.
    estimates = np.stack([first + 0.5 * second, 0.05 * second + first])
    _, permutation = pit_si_snr(estimates, [first, second])
    expected = textbook_best(textbook_si_snr, estimates, np.stack([first, second]))[1]
    assert permutation.tolist() == expected == [1, 0]


def test_the_estimates_in_the_order_of_the_references():
    estimates, references, _ = separated(3, 2000, 7)
    values, permutation = pit_si_snr(estimates, references)
    one_by_one = [
        si_snr(estimate, reference)
        for estimate, reference in zip(estimates[permutation], references, strict=True)
    ]
    assert values == pytest.approx(one_by_one, abs=1e-9)


def test_the_mixture_as_estimate_improves_nothing():
    _, references, mixture = separated(3, 2000)
    estimates = np.stack([mixture] * 3)
    assert si_snr_improvement(estimates, references, mixture) == pytest.approx([0] * 3, abs=1e-9)
    assert sdr_improvement(estimates, references, mixture) == pytest.approx([0] * 3, abs=1e-9)


def test_a_filtered_reference_has_no_distortion_but_noise_in_the_si_snr():
    references = np.random.default_rng(0).normal(size=(2, 8000))
    references[:, -100:] = 0
    delayed = np.roll(references, 40, axis=1)[::-1]
    values, permutation = sdr(delayed, references)
    assert values.min() > 100
    assert np.isfinite(values).all()
    assert permutation.tolist() == [1, 0]
    assert pit_si_snr(delayed, references)[0].max() < 0


def test_perfect_and_periodic_signals_have_finite_values():
    time = np.arange(4000) / 8000
    tones = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 1000 * time)])
    for references in (tones, np.random.default_rng(0).normal(size=(2, 4000))):
        for metric in (sdr, pit_si_snr):
            values, permutation = metric(3 * references[::-1], references)
            assert np.isfinite(values).all()
            assert values.min() > 60
            assert permutation.tolist() == [1, 0]


GOOD = np.random.default_rng(3).normal(size=(2, 600))


@pytest.mark.parametrize(
    ("estimates", "references", "reason"),
    [
        (GOOD, [GOOD[0], np.zeros(600)], "reference 2 is silent"),
        ([np.full(600, 0.1), GOOD[1]], GOOD, "estimate 1 is silent"),
        (GOOD[:, :500], GOOD, "one shape"),
        (GOOD[:1], GOOD, "as many estimates as references"),
        (GOOD[0], GOOD[0], r"\(sources, samples\)"),
        (GOOD[:, :0], GOOD[:, :0], r"\(sources, samples\)"),
        (np.where(GOOD > 2, np.nan, GOOD), GOOD, "estimate 1 has NaN"),
        (GOOD, np.where(GOOD > 2, np.inf, GOOD), "reference 1 has NaN or infinite"),
    ],
)
def test_what_cannot_be_scored_is_refused(estimates, references, reason):
    for metric in (pit_si_snr, sdr):
        with pytest.raises(ValueError, match=reason):
            metric(estimates, references)
    for metric in (si_snr_improvement, sdr_improvement):
        with pytest.raises(ValueError, match=reason):
            metric(estimates, references, GOOD.sum(axis=0))


@pytest.mark.parametrize(
    ("mixture", "reason"),
    [
        (np.zeros(600), "mixture is silent"),
        (GOOD[0, :500], "the references' length"),
        (GOOD, "must be a vector"),
        (np.full(600, np.nan), "mixture has NaN"),
    ],
)
def test_mixtures_that_cannot_be_scored_are_refused(mixture, reason):
    for metric in (si_snr_improvement, sdr_improvement):
        with pytest.raises(ValueError, match=reason):
            metric(GOOD, GOOD, mixture)

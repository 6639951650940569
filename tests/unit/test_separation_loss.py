"""The loss of separators: against scores in float64, plain loops, and numerical gradients."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.metrics import signals
from etaflow.separation.loss import ENOUGH, pit_loss, pit_si_snr, si_snr

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_by_loops(estimates: np.ndarray, references: np.ndarray) -> float:
    """The definition: projections, ratios and all permutations, in float64."""
    values = []
    for order in permutations(range(len(references))):
        ratios = []
        for estimate, reference in zip(estimates[list(order)], references, strict=True):
            e, r = estimate - estimate.mean(), reference - reference.mean()
            target = (e @ r) / (r @ r) * r
            noise = e - target
            ratios.append(10 * np.log10((target @ target) / (noise @ noise)))
        values.append(np.mean(ratios))
    return max(values)


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_a_batch_gets_what_each_mixture_gets_by_hand(speakers: int) -> None:
    references = random(5, speakers, 400)
    order = [2, 0, 1][-speakers:] if speakers == 3 else list(range(speakers))[::-1]
    noise = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0])[:, None, None]
    estimates = references[:, order] + noise * random(5, speakers, 400, seed=1) + 0.3
    values, found = pit_si_snr(estimates, references)
    for index in range(5):
        pair = estimates[index].double().numpy(), references[index].double().numpy()
        expected, permutation = signals.pit_si_snr(*pair)
        assert values[index].item() == pytest.approx(best_by_loops(*pair), abs=5e-3)
        assert values[index].item() == pytest.approx(expected.mean(), abs=5e-3)
        assert found[index].tolist() == permutation.tolist()
    exact, _ = pit_si_snr(estimates.double(), references.double())
    assert exact[0].item() == pytest.approx(best_by_loops(*_numpy(estimates, references)), abs=1e-6)


def _numpy(*signals_: torch.Tensor) -> list[np.ndarray]:
    return [each[0].double().numpy() for each in signals_]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e4), st.floats(-1, 1), st.permutations(range(3)))
def test_neither_order_nor_level_nor_offset_counts(
    seed: int, gain: float, offset: float, order: list[int]
) -> None:
    estimates, references = random(2, 3, 50, seed=seed), random(2, 3, 50, seed=seed + 1)
    expected = pit_loss(estimates, references)
    moved = gain * (estimates[:, order] + offset)
    torch.testing.assert_close(pit_loss(moved, references), expected, atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(
        pit_loss(estimates, 3 * references[:, order]), expected, atol=2e-3, rtol=1e-4
    )


def test_gradients_are_those_of_finite_differences() -> None:
    references = random(2, 2, 12).double()
    estimates = (references.flip(1) + random(2, 2, 12, seed=1)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: pit_loss(e, references), (estimates,))


def test_a_mixture_above_thirty_decibels_has_no_gradient() -> None:
    references = random(2, 2, 4_000)
    noise = torch.tensor([1e-3, 0.1])[:, None, None]
    estimates = (references + noise * random(2, 2, 4_000, seed=1)).requires_grad_()
    losses = pit_loss(estimates, references)
    assert losses[0].item() == -ENOUGH == -30
    assert losses[1].item() == pytest.approx(-20, abs=0.5)
    losses.mean().backward()
    assert estimates.grad is not None
    assert not estimates.grad[0].any()
    # The other is where alone it would be, but for the mean.
    alone = estimates.detach()[1:].clone().requires_grad_()
    pit_loss(alone, references[1:]).sum().backward()
    torch.testing.assert_close(2 * estimates.grad[1:], alone.grad)


def test_a_perfect_and_a_silent_estimate_have_finite_losses() -> None:
    references = random(1, 2, 500)
    assert pit_loss(references.clone(), references).item() == -ENOUGH
    # SI-SNR proper, of what has none: the least that there is, not 0 dB.
    estimates = torch.zeros(1, 2, 500, requires_grad=True)
    loss = pit_loss(estimates, references)
    assert loss.item() == pytest.approx(80)
    loss.sum().backward()
    assert estimates.grad is not None
    assert not estimates.grad.any()
    assert si_snr(torch.full((500,), 0.25), references[0, 0]).item() < -60
    quiet = 1e-5 * (references + random(1, 2, 500, seed=1))
    assert pit_loss(quiet, references).item() == pytest.approx(0, abs=1)


def test_what_is_not_finite_stays_so() -> None:
    for speakers in (2, 3):
        estimates = random(2, speakers, 50)
        estimates[1, 0, 3] = torch.nan
        losses = pit_loss(estimates, random(2, speakers, 50, seed=1))
        assert losses.isfinite().tolist() == [True, False]

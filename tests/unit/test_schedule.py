"""Learning-rate schedules."""

import math

import pytest
import torch
from torch import nn

from etaflow.schedule import SCHEDULES, adamw, rate, set_rates


def test_schedules_by_hand() -> None:
    found = {
        kind: [rate(step, 6, 2, kind, 0.25) for step in range(6)]
        for kind in ("constant", "linear", "cosine", "exponential")
    }
    root = math.sqrt(0.5)
    assert found == {
        "constant": [0.5, 1, 1, 1, 1, 1],
        "linear": [0.5, 1, 1, 0.75, 0.5, 0.25],
        "cosine": pytest.approx([0.5, 1, 1, (1 + root) / 2, 0.5, (1 - root) / 2]),
        "exponential": pytest.approx([0.5, 1, 1, 0.25**0.25, 0.5, 0.25**0.75]),
    }


def test_a_warm_up_may_be_none_or_all() -> None:
    for kind in SCHEDULES:
        assert rate(0, 5, 0, kind) == 1
        assert [rate(step, 4, 4, kind) for step in range(4)] == [0.25, 0.5, 0.75, 1]


def test_unknown_schedules_and_decays_are_named() -> None:
    with pytest.raises(ValueError, match="schedule 'step': known are constant, linear, cosine, ex"):
        rate(0, 1, 0, "step")
    with pytest.raises(ValueError, match="a decay of 0 is not in"):
        rate(0, 1, 0, "exponential", 0)


def test_groups_keep_their_own_rates_and_decays() -> None:
    one, other = (nn.Parameter(torch.tensor([1.0])) for _ in range(2))
    optimizer = adamw([([one], 0.1, 0.5), ([], 1.0, 1.0), ([other], 0.01, 0.0)])
    for factor in (1.0, 0.5, 0.25):
        set_rates(optimizer, factor)
        found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        assert found == [(0.1 * factor, 0.5), (0.01 * factor, 0.0)]
    one.grad = other.grad = torch.tensor([0.0])
    optimizer.step()
    assert one.item() == pytest.approx(1 - 0.1 * 0.25 * 0.5)
    assert other.item() == 1.0

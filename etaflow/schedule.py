"""Learning rates: of groups of parameters, and by step."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

SCHEDULES = ("constant", "linear", "cosine", "exponential")


def adamw(groups: Iterable[tuple[Sequence[nn.Parameter], float, float]]) -> torch.optim.AdamW:
    """AdamW over groups of parameters, each with its learning rate and weight decay.

    Groups without parameters are left out. `set_rates` sets the rates of a step.
    """
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "full_lr": lr, "weight_decay": weight_decay}
            for parameters, lr, weight_decay in groups
            if len(parameters)
        ]
    )


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group of `adamw` its learning rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_lr"]


def rate(step: int, steps: int, warmup: int, kind: str, decay: float = 0.01) -> float:
    """The factor on a learning rate in step `step` of `steps`, from 0 on.

    It rises in equal parts to 1 over the first `warmup` steps. From there it stays (`constant`), or
    goes down to 0 along a line (`linear`) or half a cosine (`cosine`, arXiv 1608.03983), or to
    `decay` by the same factor each step (`exponential`).

    Raises:
        ValueError: an unknown kind, or a decay outside (0, 1].
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule {kind!r}: known are {', '.join(SCHEDULES)}")
    if not 0 < decay <= 1:
        raise ValueError(f"schedule {kind}: a decay of {decay} is not in (0, 1]")
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / (steps - warmup)
    if kind == "linear":
        return 1 - share
    if kind == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return float(decay**share) if kind == "exponential" else 1.0

"""Learning-rate schedules."""

import math

SCHEDULES = ("constant", "linear", "cosine", "exponential")


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

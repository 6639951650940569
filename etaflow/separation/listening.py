"""Which separated mixtures to listen to, and how loud."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from etaflow.audio import Waveform


def best_and_worst(means: "pd.Series[float]", count: int) -> list[tuple[str, str]]:
    """The mixtures with the highest and the lowest means, from the best down.

    Args:
        means: of each mixture, by its `mixture_ID`.
        count: of each kind; where there are fewer than twice as many, all are shown.

    Returns:
        `best 1`, `best 2`, …, `worst 2`, `worst 1`, each with its `mixture_ID`.
    """
    # Of equal means, the first by name.
    ordered = list(means.sort_index().sort_values(ascending=False, kind="stable").index)
    best = min(count, -(-len(ordered) // 2))
    worst = min(count, len(ordered) - best)
    titles = [f"best {rank}" for rank in range(1, best + 1)]
    titles += [f"worst {rank}" for rank in range(worst, 0, -1)]
    chosen = ordered[:best] + ordered[len(ordered) - worst :]
    return list(zip(titles, chosen, strict=True))


def at_level_of(estimate: Waveform, reference: Waveform) -> Waveform:
    """An estimate (T,) scaled to the mean square of its reference (T,).

    SI-SNR knows no scale. It does not change.

    Raises:
        ValueError: the estimate is silent.
    """
    energies = [
        float(np.square(signal, dtype=np.float64).sum()) for signal in (reference, estimate)
    ]
    if energies[1] == 0:
        raise ValueError("the estimate is silent: it has no level to bring to another's")
    return (estimate * np.sqrt(energies[0] / energies[1])).astype(np.float32)


def within_range(waveforms: Sequence[Waveform]) -> list[Waveform]:
    """Waveforms scaled by one factor, so that none goes beyond [-1, 1]; as they are if none did."""
    peak = max(float(np.abs(waveform).max(initial=0)) for waveform in waveforms)
    return [waveform / np.float32(max(1.0, peak)) for waveform in waveforms]

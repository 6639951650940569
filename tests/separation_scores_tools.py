"""Tables of made-up scores of separations."""

import numpy as np
import pandas as pd

from etaflow.separation.score_table import RATIOS


def scores_table(improvements: np.ndarray, before: np.ndarray, swapped: bool = False):
    """The scores of improvements (N, S) over SI-SNRs (N, S) of the mixtures `m0`, `m1`, …"""
    count, sources = improvements.shape
    order = np.arange(1, sources + 1)
    table = pd.DataFrame(
        {
            "mixture_ID": np.repeat([f"m{number}" for number in range(count)], sources),
            "source": np.tile(order, count),
            "speaker": "a",
            "estimate": np.tile(order[::-1] if swapped else order, count),
            "si_snr": (before + improvements).ravel(),
            "mixture_si_snr": before.ravel(),
            "si_snri": improvements.ravel(),
        }
    )
    for name in ("sdr", "mixture_sdr", "sdri"):
        table[name] = table[name.replace("sdr", "si_snr")] + 0.5
    return table[["mixture_ID", "source", "speaker", "estimate", *RATIOS]]

"""Detection error trade-offs, of conversions and of speaker verification."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from etaflow.figures.base import COLOURS, single_axes
from etaflow.metrics import detection_error_curve, equal_error_point


def _det(
    trials: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], accepts: str, rejects: str
) -> Figure:
    """Detection error trade-off: of each system, by its label, scores and labels (1 or 0)."""
    figure, axes = single_axes(5.5, 5.0)
    ticks = np.array([0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 0.999])
    lowest = 5e-4  # rates beyond the axes, 0 among them, are drawn on their edge
    # The colours again, with another stroke.
    strokes = [(colour, style) for style in ("-", "--", ":") for colour in COLOURS]
    for (system, pair), (colour, style) in zip(trials.items(), strokes * len(trials), strict=False):
        curve = detection_error_curve(*pair)
        accept, reject, _ = curve
        rate, _ = equal_error_point(*curve)
        axes.plot(
            *norm.ppf(np.clip([accept, reject], lowest, 1 - lowest)),
            color=colour,
            ls=style,
            label=f"{system}, EER {100 * rate:.1f} %",
        )
    limits = norm.ppf([lowest, 1 - lowest])
    axes.plot(limits, limits, color="0.7", lw=0.8, zorder=0)
    axes.set(
        xlim=limits,
        ylim=limits,
        xlabel=accepts,
        ylabel=rejects,
    )
    labels_ = [f"{100 * tick:g}" for tick in ticks]
    axes.set_xticks(norm.ppf(ticks), labels_)
    axes.set_yticks(norm.ppf(ticks), labels_)
    axes.legend(frameon=False, loc="upper right", fontsize="small")
    return figure


def plot_det(trials: Mapping[str, pd.DataFrame]) -> Figure:
    """Detection error trade-off of real against converted trials, pooled over targets.

    Args:
        trials: of each system, by its label, a table with columns `kind` (`real` or `converted`)
            and `score`.
    """
    pairs: dict[str, tuple[npt.ArrayLike, npt.ArrayLike]] = {
        system: (table["score"].to_numpy(float), (table["kind"] == "real").to_numpy(float))
        for system, table in trials.items()
    }
    return _det(
        pairs,
        "conversions taken for the target (%)",
        "real recordings of the target rejected (%)",
    )


def plot_verification_det(trials: Mapping[str, pd.DataFrame]) -> Figure:
    """Detection error trade-off of systems on one list of trials.

    Args:
        trials: of each system, by its label, a table with columns `target` (1 or 0) and `score`.
    """
    pairs: dict[str, tuple[npt.ArrayLike, npt.ArrayLike]] = {
        system: (table["score"].to_numpy(float), table["target"].to_numpy(float))
        for system, table in trials.items()
    }
    return _det(pairs, "different speakers accepted (%)", "same speaker rejected (%)")

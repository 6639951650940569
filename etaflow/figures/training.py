"""Curves of trainings."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from etaflow.figures.base import COLOURS

DECIBELS = ("valid/si_snr", "valid/si_snri")


def plot_training(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Training and validation curves, a panel a metric, a colour a training.

    Where the improvement over a mixture is drawn, a line at 0 is that of separating nothing.

    Args:
        histories: of each training, by its label, a table with columns `step`, `metric`, `value`.
    """
    metrics = sorted({name for table in histories.values() for name in table["metric"]})
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(4 * columns, 2.8 * rows),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for axes, metric in zip(grid.flat, metrics, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        for (name, table), colour in zip(histories.items(), COLOURS * len(histories), strict=False):
            curve = table[table["metric"] == metric]
            axes.plot(
                curve["step"],
                curve["value"],
                color=colour,
                label=name,
                marker="o" if len(curve) < 30 else None,
                ms=3,
            )
        if metric == "valid/si_snri":
            axes.axhline(0, color="0.7", lw=0.8, ls="--", zorder=0)
        unit = " (dB)" if metric in DECIBELS else ""
        axes.set(title=metric + unit, xlabel="step")
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(metrics))
        # Where there is no panel below, that has them.
        axes.tick_params(labelbottom=place + columns >= len(metrics))
    grid.flat[0].legend(frameon=False, fontsize="small")
    return figure

"""The figure of a sweep over settings of an Eta model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from etaflow.evaluation.tables import UNTRAINED
from etaflow.figures.base import COLOURS


def plot_sweep(table: pd.DataFrame) -> Figure:
    """Curves with 95 % intervals: a column an axis of the sweep, a row a measure.

    Args:
        table: as `collect_sweep` writes it.
    """
    table = table.assign(measure=table["probe"] + ", " + table["unit"])
    axes_names = list(dict.fromkeys(table["axis"]))
    measures = list(dict.fromkeys(table["measure"]))
    figure, grid = plt.subplots(
        len(measures),
        len(axes_names),
        figsize=(3.2 * len(axes_names), 2.6 * len(measures)),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    colours = {"raw": "0.4", "eta": COLOURS[0], "fitted": COLOURS[2], "held out": COLOURS[1]}
    for row, measure in enumerate(measures):
        for column, axis in enumerate(axes_names):
            axes = grid[row, column]
            axes.spines[["top", "right"]].set_visible(False)
            shown = table[(table["axis"] == axis) & (table["measure"] == measure)]
            places = {value: at for at, value in enumerate(dict.fromkeys(shown["value"]))}
            for number, (features, curve) in enumerate(shown.groupby("features", sort=False)):
                at = curve["value"].map(places) + 0.05 * number  # bars side by side
                error = [curve["result"] - curve["low"], curve["high"] - curve["result"]]
                axes.errorbar(
                    at,
                    curve["result"],
                    None if curve["low"].isna().all() else np.array(error),
                    fmt="o-",
                    ms=4,
                    capsize=3,
                    color=colours[str(features)],
                    label={"eta": "η"}.get(str(features), features),
                )
            if shown["chance"].notna().any():
                axes.axhline(shown["chance"].iloc[0], color="0.7", lw=0.8, ls=":", label="chance")
            axes.set_xticks(list(places.values()), list(places))
            axes.set_xlabel(axis)
            if column == 0:
                axes.set_ylabel(f"{measure} (%)")
    for row in grid:
        row[-1].legend(frameon=False, fontsize="small")
    notes = [UNTRAINED] if "untrained" in set(table["weights"]) else []
    if (table["speakers_in_fit"] > 0).any():
        notes.append("some of the probed speakers were in the fit, which flatters it")
    figure.supxlabel("\n".join(notes), fontsize="small")
    return figure

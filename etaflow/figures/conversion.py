"""Figures of conversions."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from etaflow.evaluation.tables import UNTRAINED
from etaflow.figures.base import COLOURS, labelled

REFERENCE_LABELS = {
    "wer": "word error rate (%)",
    "eer_per_target": "equal error rate,\nmean over targets (%)",
    "similarity_target": "similarity to the target",
    "dnsmos": "DNSMOS",
}


def plot_references(table: pd.DataFrame) -> Figure:
    """Curves with 95 % intervals against the seconds of reference used, a panel a metric.

    Args:
        table: as `reference_table` makes it.
    """
    metrics = [name for name in REFERENCE_LABELS if name in set(table["metric"])]
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(3.2 * len(metrics), 3.2), squeeze=False, layout="constrained"
    )
    lowest, highest = 0.9 * table["seconds"].min(), 1.1 * table["seconds"].max()
    ticks = [t for t in (1, 2, 5, 10, 30, 60, 120, 240, 480, 960) if lowest <= t <= highest]
    for axes, metric in zip(grid.flat, metrics, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        shown = table[table["metric"] == metric]
        systems = shown.groupby("base", sort=False)
        for (base, curve), colour in zip(systems, COLOURS * len(systems), strict=False):
            curve = curve.sort_values("seconds")
            error = [curve["value"] - curve["low"], curve["high"] - curve["value"]]
            axes.errorbar(
                curve["seconds"],
                curve["value"],
                np.array(error),
                fmt="o-",
                ms=4,
                capsize=3,
                color=colour,
                label=labelled(str(base), curve["weights"].iloc[0]),
            )
            everything = curve[curve["asked"] == "all"]
            axes.plot(everything["seconds"], everything["value"], "o", ms=9, mfc="none", c=colour)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set(xlabel="reference (s)", ylabel=REFERENCE_LABELS[metric])
    grid.flat[0].legend(frameon=False, fontsize="small")
    notes = ["ring: all that there is of a target"] if "all" in set(table["asked"]) else []
    short = table[table["short"] > 0].drop_duplicates(["asked", "seconds", "short", "targets"])
    notes += [
        f"{row.asked} s asked: {row.short} of {row.targets} targets have less, "
        f"median {row.seconds:.1f} s"
        for row in short.itertuples()
    ]
    notes += [UNTRAINED] if "untrained" in set(table["weights"]) else []
    figure.supxlabel("\n".join(notes), fontsize="small")
    return figure

"""Figures of Eta models."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from etaflow.figures.base import COLOURS, single_axes
from etaflow.store import Floats


def plot_scree(explained: Mapping[str, Floats]) -> Figure:
    """Explained variance, by component and summed, of each Eta model's PCA."""
    figure, axes = single_axes()
    for (name, ratio), colour in zip(explained.items(), COLOURS * len(explained), strict=False):
        component = np.arange(1, len(ratio) + 1)
        axes.bar(component, 100 * ratio, color=colour, alpha=0.4, label=f"{name}, each")
        axes.plot(component, 100 * np.cumsum(ratio), "o-", ms=3, color=colour, label=f"{name}, sum")
    axes.set(xlabel="principal component", ylabel="explained variance (%)", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure


def plot_norms(norms: Mapping[str, Floats], note: str) -> Figure:
    """How long utterance means are: distributions of their norms (U,), by what they are of."""
    figure, axes = single_axes()
    bins = np.histogram_bin_edges(np.concatenate(list(norms.values())), 60).tolist()
    for (name, values), colour in zip(norms.items(), COLOURS, strict=False):
        axes.hist(values, bins, color=colour, alpha=0.55, label=f"{name}, mean {values.mean():.2f}")
    axes.set(xlabel="Euclidean norm", ylabel="utterances")
    axes.legend(frameon=False, fontsize="small")
    figure.supxlabel(note, fontsize="small", y=-0.04)
    return figure

"""What figures are made of."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etaflow.atomic import atomic_file

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write an SVG, whole or not at all, the same bytes for the same figure."""
    with mpl.rc_context({"svg.hashsalt": "etaflow"}), atomic_file(path) as part:
        figure.savefig(part, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def spread(count: int, limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` of the indices 0 to `count` - 1, evenly spread, the ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def labelled(name: str, weights: str) -> str:
    """The name of what stands on weights, with a word on them where they were never trained."""
    return f"{name} (untrained)" if weights == "untrained" else name


def single_axes(width: float = 5.5, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure of one panel, its size in inches."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes

"""Maps of utterances."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from etaflow.store import Floats

COLUMNS = 4  # panels side by side
LEAST = 4  # utterances that UMAP needs


@dataclass(frozen=True)
class Map:
    """A panel: a point (U, 2) an utterance, and whose it is (U,)."""

    title: str
    points: Floats
    speakers: Sequence[str]


def utterance_umap(vectors: Floats, seed: int) -> npt.NDArray[np.float32]:
    """UMAP (U, 2) of vectors (U, Q) by cosine distance; needs `LEAST` or more."""
    from umap import UMAP

    neighbours = min(15, len(vectors) - 1)
    # The spectral start needs more points than it has dimensions to spare.
    start = "spectral" if len(vectors) > 10 else "random"
    reducer = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1, init=start)
    return np.asarray(reducer.fit_transform(vectors), np.float32)


def plot_umap(maps: Sequence[Map], note: str) -> Figure:
    """One panel a map, utterances coloured by speaker, who is of one colour in all panels."""
    columns = min(COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 4.4 * rows), squeeze=False, layout="constrained"
    )
    names = sorted({name for each in maps for name in each.speakers})
    colours = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(names)))
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, each in zip(grid.flat, maps, strict=False):
        owners = np.asarray(each.speakers)
        drawn = [
            axes.scatter(*each.points[owners == name].T, s=12, color=colour)
            for name, colour in zip(names, colours, strict=True)
        ]
        axes.set(title=each.title, xticks=[], yticks=[])
    if len(names) <= 24:
        # Speakers may be named anything: dollars would be taken for mathematics.
        labels = [name.replace("$", r"\$") for name in names]
        grid[0, -1].legend(
            drawn,
            labels,
            frameon=False,
            fontsize="x-small",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    figure.supxlabel(note, fontsize="small")
    return figure

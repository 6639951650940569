"""Maps of utterances."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from etaflow.store import Floats


def utterance_umap(vectors: Floats, seed: int) -> npt.NDArray[np.float32]:
    """UMAP (U, 2) of vectors (U, Q) by cosine distance; needs four utterances or more."""
    from umap import UMAP

    neighbours = min(15, len(vectors) - 1)
    # The spectral start needs more points than it has dimensions to spare.
    start = "spectral" if len(vectors) > 10 else "random"
    reducer = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1, init=start)
    return np.asarray(reducer.fit_transform(vectors), np.float32)


def plot_umap(maps: Mapping[str, Floats], speakers: Sequence[str], note: str) -> Figure:
    """One panel a map (U, 2), utterances coloured by speaker."""
    figure, grid = plt.subplots(
        1, len(maps), figsize=(4.6 * len(maps), 4.4), squeeze=False, layout="constrained"
    )
    owners = np.asarray(speakers)
    names = sorted(set(speakers))
    colours = plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(names)))
    for axes, (title, points) in zip(grid.flat, maps.items(), strict=True):
        drawn = [
            axes.scatter(*points[owners == name].T, s=12, color=colour)
            for name, colour in zip(names, colours, strict=True)
        ]
        axes.set(title=title, xticks=[], yticks=[])
    if len(names) <= 24:
        # Speakers may be named anything: dollars would be taken for mathematics.
        labels = [name.replace("$", r"\$") for name in names]
        grid.flat[-1].legend(
            drawn,
            labels,
            frameon=False,
            fontsize="x-small",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    figure.supxlabel(note, fontsize="small")
    return figure

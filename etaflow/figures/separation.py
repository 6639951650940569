"""The figure of how well systems separate one set of mixtures."""

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etaflow.evaluation.tables import UNTRAINED
from etaflow.figures.base import COLOURS, spread
from etaflow.separation.score_table import mixture_means
from etaflow.store import Floats

POINTS = 800  # of a panel, at most
COLUMNS = 4  # of panels
BEYOND = 0.002  # share of the values that lies beyond the axes, at each end
Interval = tuple[float, float, float]  # value, low, high


def plot_separation(
    scores: Mapping[str, pd.DataFrame], means: Mapping[str, Interval], untrained: bool = False
) -> Figure:
    """Above, the SI-SNRi of the mixtures, a row a system; below, SI-SNR before and after.

    Above are histograms of the means over each mixture's sources, each to its own height, with
    their mean and its interval. Below is a panel a system, a point a source: the SI-SNR of its
    estimate against that of the mixture, of at most `POINTS` sources, spread evenly.

    Args:
        scores: of each system, by its label, columns `mixture_ID mixture_si_snr si_snr si_snri`.
        means: of each label, the mean SI-SNRi and its interval.
        untrained: whether untrained weights had a part in any.
    """
    columns = min(COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    heights = [0.6 + 0.5 * len(scores), 2.6 * rows]
    figure = plt.figure(figsize=(9.5, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    _distributions(above.subplots(), scores, means)
    grid = below.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    _before_and_after(list(grid.flat), columns, scores)
    below.supxlabel("SI-SNR of the mixture (dB)", fontsize="medium")
    below.supylabel("SI-SNR of the estimate (dB)", fontsize="medium")
    most = max(map(len, scores.values()))
    notes = [
        "above: mean and 95 % interval on each histogram; "
        f"below: a point a source, {min(POINTS, most)} of {most}",
        "dashed below: the estimate is as far off as the mixture; "
        f"the {100 * BEYOND:g} % beyond the axes at each end are drawn on their edge",
    ]
    notes += [UNTRAINED] if untrained else []
    figure.supxlabel("\n".join(notes), fontsize="small")
    return figure


def _distributions(
    axes: Axes, scores: Mapping[str, pd.DataFrame], means: Mapping[str, Interval]
) -> None:
    of_mixtures = {name: mixture_means(table).to_numpy() for name, table in scores.items()}
    edges = _edges(of_mixtures)
    named = zip(of_mixtures.items(), COLOURS * len(scores), strict=False)
    for place, ((name, values), colour) in enumerate(named):
        counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        tops = place - 0.75 * counts / counts.max()
        axes.stairs(tops, edges, baseline=place, fill=True, color=colour, alpha=0.45)
        value, low, high = means[name]
        axes.plot([low, high], [place, place], color="black", lw=2.5, solid_capstyle="butt")
        axes.plot(value, place, "o", ms=5, color="black")
        axes.annotate(
            f"{value:.1f} [{low:.1f}, {high:.1f}] dB, n = {len(values)}",
            (1.01, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize="small",
        )
    axes.axvline(0, color="0.3", lw=0.8, ls="--", zorder=0)
    axes.annotate(
        "separating nothing",
        (0, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize="small",
        color="0.3",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    # The first system stands at the top.
    axes.set_ylim(len(scores) - 0.7, -0.9)
    axes.set_yticks(range(len(scores)), [_plain(name) for name in scores])
    axes.set_xlabel("SI-SNRi of a mixture, mean over its sources (dB)")


def _limits(values: Iterable[Floats]) -> tuple[float, float]:
    """Where all but the outermost values lie, with 1 dB of room."""
    low, high = np.quantile(np.concatenate(list(values)), [BEYOND, 1 - BEYOND])
    return low - 1, high + 1


def _edges(of_mixtures: Mapping[str, Floats]) -> Floats:
    """Of 10 to 60 bins, more where there are more mixtures; 0 is among them."""
    low, high = _limits(of_mixtures.values())
    fewest = min(map(len, of_mixtures.values()))
    count = int(np.clip(3 * fewest**0.4, 10, 60))
    return np.linspace(min(low, -1), max(high, 1), count + 1)


def _before_and_after(panels: list[Axes], columns: int, scores: Mapping[str, pd.DataFrame]) -> None:
    across, up = (
        _limits(table[name].to_numpy() for table in scores.values())
        for name in ("mixture_si_snr", "si_snr")
    )
    ends = [min(across[0], up[0]), max(across[1], up[1])]
    named = zip(scores.items(), COLOURS * len(scores), strict=False)
    for axes, ((name, table), colour) in zip(panels, named, strict=False):
        shown = table.iloc[spread(len(table), POINTS)]
        axes.plot(ends, ends, color="0.3", lw=0.8, ls="--")
        axes.plot(
            shown["mixture_si_snr"].clip(*across),
            shown["si_snr"].clip(*up),
            "o",
            ms=2.2,
            mew=0,
            alpha=0.5,
            color=colour,
            clip_on=False,
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(_plain(name), fontsize="small")
    panels[0].set(xlim=across, ylim=up)
    for place, axes in enumerate(panels):
        axes.set_visible(place < len(scores))
        # Where there is no panel below, that has them.
        axes.tick_params(labelbottom=place + columns >= len(scores))


def _plain(name: str) -> str:
    """A name that matplotlib does not take for mathematics."""
    return name.replace("$", r"\$")

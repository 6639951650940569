"""Figures of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from etaflow.atomic import atomic_file
from etaflow.evaluation.tables import UNTRAINED
from etaflow.metrics import detection_error_curve, equal_error_point
from etaflow.store import Floats

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


def _axes(width: float = 5.5, height: float = 4.0) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_scree(explained: Mapping[str, Floats]) -> Figure:
    """Explained variance, by component and summed, of each Eta model's PCA."""
    figure, axes = _axes()
    for (name, ratio), colour in zip(explained.items(), COLOURS * len(explained), strict=False):
        component = np.arange(1, len(ratio) + 1)
        axes.bar(component, 100 * ratio, color=colour, alpha=0.4, label=f"{name}, each")
        axes.plot(component, 100 * np.cumsum(ratio), "o-", ms=3, color=colour, label=f"{name}, sum")
    axes.set(xlabel="principal component", ylabel="explained variance (%)", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure


def labelled(name: str, weights: str) -> str:
    """The name of what stands on weights, with a word on them where they were never trained."""
    return f"{name} (untrained)" if weights == "untrained" else name


def _det(
    trials: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], accepts: str, rejects: str
) -> Figure:
    """Detection error trade-off: of each system, by its label, scores and labels (1 or 0)."""
    figure, axes = _axes(5.5, 5.0)
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


def plot_training(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Training and validation curves, a panel a metric, a colour a training.

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
        axes.set(title=metric, xlabel="step")
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(metrics))
        # Where there is no panel below, that has them.
        axes.tick_params(labelbottom=place + columns >= len(metrics))
    grid.flat[0].legend(frameon=False, fontsize="small")
    return figure


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


def plot_norms(norms: Mapping[str, Floats], note: str) -> Figure:
    """How long utterance means are: distributions of their norms (U,), by what they are of."""
    figure, axes = _axes()
    bins = np.histogram_bin_edges(np.concatenate(list(norms.values())), 60).tolist()
    for (name, values), colour in zip(norms.items(), COLOURS, strict=False):
        axes.hist(values, bins, color=colour, alpha=0.55, label=f"{name}, mean {values.mean():.2f}")
    axes.set(xlabel="Euclidean norm", ylabel="utterances")
    axes.legend(frameon=False, fontsize="small")
    figure.supxlabel(note, fontsize="small", y=-0.04)
    return figure


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

"""Figures of the report, and the pages that stand in it."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from etaflow.atomic import atomic_file
from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.evaluation.tables import METRIC_NOTES, UNTRAINED, in_order
from etaflow.metrics import detection_error_curve, equal_error_rate
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


def plot_det(trials: Mapping[str, pd.DataFrame]) -> Figure:
    """Detection error trade-off of real against converted trials, pooled over targets.

    Args:
        trials: of each system, by its label, a table with columns `kind` (`real` or `converted`)
            and `score`.
    """
    figure, axes = _axes(5.5, 5.0)
    ticks = np.array([0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 0.999])
    lowest = 5e-4  # rates beyond the axes, 0 among them, are drawn on their edge
    for (system, table), colour in zip(trials.items(), COLOURS * len(trials), strict=False):
        scores, labels = table["score"].to_numpy(float), (table["kind"] == "real").to_numpy(int)
        accept, reject, _ = detection_error_curve(scores, labels)
        rate, _ = equal_error_rate(scores, labels)
        axes.plot(
            *norm.ppf(np.clip([accept, reject], lowest, 1 - lowest)),
            color=colour,
            label=f"{system}, EER {100 * rate:.1f} %",
        )
    limits = norm.ppf([lowest, 1 - lowest])
    axes.plot(limits, limits, color="0.7", lw=0.8, zorder=0)
    axes.set(
        xlim=limits,
        ylim=limits,
        xlabel="conversions taken for the target (%)",
        ylabel="real recordings of the target rejected (%)",
    )
    labels_ = [f"{100 * tick:g}" for tick in ticks]
    axes.set_xticks(norm.ppf(ticks), labels_)
    axes.set_yticks(norm.ppf(ticks), labels_)
    axes.legend(frameon=False, loc="upper right", fontsize="small")
    return figure


def plot_training(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Training and validation curves, a panel a metric, a colour a vocoder.

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
    for axes in list(grid.flat)[len(metrics) :]:
        axes.set_visible(False)
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


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 1.5rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; }}
td small, .note {{ color: #666; }}
th {{ min-width: 6rem; }}
th small, td small {{ display: block; font-weight: normal; color: #666; }}
td small {{ white-space: nowrap; }}
.untrained {{ color: #a33; }}
audio {{ width: 11rem; height: 2.2rem; display: block; }}
.scroll {{ overflow-x: auto; }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def _page(title: str, body: str) -> str:
    return _PAGE.format(title=html.escape(title), body=body)


def metrics_page(title: str, metrics: pd.DataFrame) -> str:
    """A page with one row a system and one column a metric.

    Args:
        title: of the page.
        metrics: long table, columns `system metric value low high n weights`.
    """
    notes = METRIC_NOTES
    names = in_order(metrics["metric"])
    head = "".join(
        f'<th title="{html.escape(notes.get(n, ""))}">{html.escape(n)}</th>' for n in names
    )
    rows = []
    for system, table in metrics.groupby("system", sort=False):
        by_name = table.set_index("metric")
        weights = set(table["weights"])
        label = html.escape(str(system))
        for weight in sorted(weights):
            kind = ' class="untrained"' if weight == "untrained" else ""
            label += f"<small{kind}>{weight} weights</small>"
        cells = []
        for name in names:
            if name not in by_name.index:
                cells.append("<td></td>")
                continue
            row = by_name.loc[name].to_dict()
            mark = ' class="untrained"' if row["weights"] == "untrained" else ""
            flag = ", untrained" if row["weights"] == "untrained" else ""
            cells.append(
                f"<td{mark}>{row['value']:.2f}<small>{row['low']:.2f} to {row['high']:.2f}</small>"
                f"<small>n = {int(row['n'])}{flag}</small></td>"
            )
        rows.append(f"<tr><th>{label}</th>{''.join(cells)}</tr>")
    legend = "".join(
        f"<li><b>{html.escape(n)}</b>: {html.escape(notes[n])}</li>" for n in names if n in notes
    )
    warning = (
        f'<p class="untrained">{UNTRAINED.capitalize()}.</p>'
        if "untrained" in set(metrics["weights"])
        else ""
    )
    return _page(
        title,
        f'{warning}<div class="scroll"><table><tr><th>system</th>{head}</tr>{"".join(rows)}</table>'
        f"</div><p class=note>Small: bootstrap 95 % interval, and how many items a figure rests on."
        f"</p><ul class=note>{legend}</ul>",
    )


def _player(waveform: Waveform) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def listening_page(
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, Waveform]]],
    columns: Sequence[str],
    note: str,
) -> str:
    """A page with audio players that needs no other file.

    Args:
        title: of the page.
        rows: one a pair: its title, what is said, and the 16 kHz waveform of each column.
        columns: names of the columns, in order.
        note: stands above the table.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for heading, text, waveforms in rows:
        cells = "".join(
            f"<td>{_player(waveforms[column]) if column in waveforms else ''}</td>"
            for column in columns
        )
        lines.append(
            f"<tr><th>{html.escape(heading)}<small>{html.escape(text)}</small></th>{cells}</tr>"
        )
    return _page(
        title,
        f"<p class=note>{html.escape(note)}</p><div class=scroll><table><tr><th>pair</th>{head}"
        f"</tr>{''.join(lines)}</table></div>",
    )

"""Tables of systems, to read, join and show. Loads no model."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from etaflow.manifest import read_table

COLUMNS = ["system", "metric", "value", "low", "high", "n", "weights"]
# What each metric says, in the order that tables show them.
METRIC_NOTES = {
    "wer": "word error rate, % of all words, both texts put through Whisper's English normaliser "
    "(numbers as digits, contractions written out), but for its table of British and American "
    "spellings: colour for color is an error",
    "cer": "character error rate, % of all characters, likewise",
    "eer_per_target": "equal error rate, %, of telling conversions from the target's recordings, "
    "a target speaker at a time, then averaged; 50 cannot be told apart, higher is better",
    "eer_pooled": "the same with all targets' trials in one",
    "similarity_target": "cosine of the judge's embedding with the target speaker's mean "
    "(without the utterance's own recording for systems that do not convert)",
    "similarity_source": "cosine with the source speaker's mean; a conversion should leave it",
    "nearer_target": "% of conversions that are more similar to the target speaker than to the "
    "source speaker",
    "dnsmos": "predicted overall opinion score, 1 to 5",
    "si_snr": "copy-synthesis against its recording, dB; phases count, so a good vocoder may "
    "score low",
    "mel_distance": "copy-synthesis against its recording, mean absolute difference of log-mels "
    "(natural logarithm); lower is better",
}
UNTRAINED = (
    "untrained weights in the path: these numbers say that the workflow runs, "
    "not how well the method works"
)


def read_converted(path: str | Path) -> pd.DataFrame:
    """Read the table of a system's waveforms; `path` becomes relative to the working directory.

    Raises:
        ValueError: the table is empty or an utterance id stands twice.
    """
    table = read_table(path)
    if table.empty or table["utterance_id"].duplicated().any():
        raise ValueError(f"{path}: no utterances, or an utterance id stands twice")
    table["path"] = [str(Path(path).parent / name) for name in table["path"]]
    return table


def concatenate_metrics(paths: Sequence[str | Path]) -> pd.DataFrame:
    """One table of several systems', in the order given.

    The columns are those of the first; the ones before `value` name a figure.

    Raises:
        ValueError: columns that are not of metrics, or not those of the first, or a figure stands
            twice.
    """
    tables: list[pd.DataFrame] = []
    for path in paths:
        table = read_table(path)
        expected = list(tables[0] if tables else table)
        if list(table) != expected or not set(COLUMNS) <= set(table):
            raise ValueError(
                f"{path}: columns {list(table)}, not {expected if tables else COLUMNS}"
            )
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    names = [str(name) for name in table]
    keys = names[: names.index("value")]
    twice = table[table.duplicated(keys)]
    if len(twice):
        figure = " of ".join(reversed(list(twice.iloc[0][keys])))
        raise ValueError(f"{figure} stands twice in {', '.join(map(str, paths))}")
    return table


def in_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once: those of `METRIC_NOTES` in its order, then others by name."""
    known = set(metrics)
    return [name for name in METRIC_NOTES if name in known] + sorted(known - set(METRIC_NOTES))


def _grid(table: pd.DataFrame, down: str, across: str, corner: str) -> list[str]:
    """The cells as lines, rows and columns in the order that they come in."""
    wide = table.pivot(index=down, columns=across, values="cell").fillna("")
    wide = wide.reindex(index=table[down].unique(), columns=table[across].unique())
    rows = [[corner, *wide.columns]]
    rows += [[name, *cells] for name, cells in zip(wide.index, wide.values, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def format_metrics_table(table: pd.DataFrame) -> str:
    """The figures as text: a row a metric, a column a system, `value [low, high]`.

    Figures of several lists of trials or sets of mixtures stand the other way round, a block each:
    systems are many, and metrics few. A line below names the systems that have untrained weights in
    their path.
    """
    figures = table[["value", "low", "high"]].astype(float)
    cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in figures.to_numpy()]
    filled = table.assign(cell=cells)
    measured_on = [name for name in ("trials", "mixtures") if name in table]
    if measured_on:
        blocks = [
            _grid(block, "system", "metric", str(name))
            for name, block in filled.groupby(measured_on[0], sort=False)
        ]
    else:
        order = filled["metric"].map(in_order(filled["metric"]).index)
        blocks = [_grid(filled.iloc[order.argsort(kind="stable")], "metric", "system", "")]
    lines = [line for block in blocks for line in block]
    untrained = table.loc[table["weights"] == "untrained", "system"].unique()
    notes = [f"{', '.join(untrained)}: {UNTRAINED}"] if len(untrained) else []
    return "\n".join([*lines, *notes])

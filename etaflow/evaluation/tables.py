"""Tables of systems, to read, join and show. Loads no model."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from etaflow.manifest import read_table

COLUMNS = ["system", "metric", "value", "low", "high", "n", "weights"]
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

    Raises:
        ValueError: other columns than those of `metrics_table`, or a metric of a system twice.
    """
    tables = []
    for path in paths:
        table = read_table(path)
        if list(table) != COLUMNS:
            raise ValueError(f"{path}: columns {list(table)}, not {COLUMNS}")
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    twice = table[table.duplicated(["system", "metric"])]
    if len(twice):
        system, metric = twice.iloc[0][["system", "metric"]]
        raise ValueError(f"{metric} of {system} stands twice in {', '.join(map(str, paths))}")
    return table


def format_metrics_table(table: pd.DataFrame) -> str:
    """The figures as text: a row a system, a column a metric, `value [low, high]`.

    A line below names each system that has untrained weights in its path.
    """
    figures = table[["value", "low", "high"]].astype(float)
    cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in figures.to_numpy()]
    wide = table.assign(cell=cells).pivot(index="system", columns="metric", values="cell")
    wide = wide.reindex(index=table["system"].unique(), columns=table["metric"].unique())
    rows = [["system", *wide.columns]]
    rows += [[name, *cells] for name, cells in zip(wide.index, wide.fillna("").values, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    untrained = table.loc[table["weights"] == "untrained", "system"].unique()
    return "\n".join([*lines, *(f"{system}: {UNTRAINED}" for system in untrained)])

"""Plot how well systems separate one set of mixtures."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure
from etaflow.figures.separation import plot_separation
from etaflow.manifest import read_table
from etaflow.script import new_app
from etaflow.separation.score_table import read_scores

app = new_app()


@app.command()
def main(
    scores: Annotated[
        list[Path], typer.Argument(help="TSV of the set, each in its system's folder, in order")
    ],
    metrics: Annotated[Path, typer.Option(help="figures of all systems and sets of mixtures")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw the improvements of the mixtures, and each source before and after."""
    sets = sorted({path.stem for path in scores})
    if len(sets) > 1:
        raise typer.BadParameter(f"scores of {' and '.join(sets)}: a figure is of one set")
    table = read_table(metrics, ("value", "low", "high"))
    table = table[(table["mixtures"] == sets[0]) & (table["metric"] == "si_snri")]
    rows = table.set_index("system")
    tables, means = {}, {}
    for path in scores:
        system = path.parent.name
        if system not in rows.index:
            raise typer.BadParameter(f"{metrics} has no si_snri of {system} on {sets[0]}")
        row = rows.loc[system]
        label = labelled(system, row["weights"])
        tables[label] = read_scores(path)
        means[label] = (row["value"], row["low"], row["high"])
    untrained = "untrained" in set(rows.loc[[path.parent.name for path in scores], "weights"])
    save_figure(plot_separation(tables, means, untrained), output)


if __name__ == "__main__":
    app()

"""Plot the detection error trade-off of the conversions."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure
from etaflow.figures.det import plot_det
from etaflow.manifest import read_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    trials: Annotated[list[Path], typer.Argument(help="trials.tsv, each in its system's folder")],
    metrics: Annotated[Path, typer.Option(help="metrics.tsv of all systems, for their weights")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw one curve a system; systems without trials are left out."""
    weights = read_table(metrics).groupby("system")["weights"].first()
    tables = {
        labelled(path.parent.name, weights[path.parent.name]): read_table(path, ("score",))
        for path in trials
    }
    save_figure(plot_det({name: table for name, table in tables.items() if len(table)}), output)


if __name__ == "__main__":
    app()

"""Plot what a sweep over Eta models found."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import save_figure
from etaflow.figures.sweep import plot_sweep
from etaflow.manifest import read_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    table: Annotated[Path, typer.Argument(help="sweep.tsv")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw a column an axis of the sweep, a row a measure."""
    rows = read_table(table, ("result", "low", "high", "chance", "n", "speakers_in_fit"))
    save_figure(plot_sweep(rows), output)


if __name__ == "__main__":
    app()

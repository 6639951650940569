"""Plot what the amount of reference speech does to conversions."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.evaluation.references import reference_table
from etaflow.figures.base import save_figure
from etaflow.figures.conversion import plot_references
from etaflow.manifest import read_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    entry: Annotated[list[str], typer.Option(help="BASE=SECONDS (or all)=FOLDER of a system")],
    metrics: Annotated[Path, typer.Option(help="metrics.tsv of all systems")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw a panel a metric, a line a base system."""
    parts = [each.split("=", 2) for each in entry]
    entries = [(base, asked, Path(folder)) for base, asked, folder in parts]
    table = reference_table(entries, read_table(metrics, ("value", "low", "high", "n")))
    save_figure(plot_references(table), output)


if __name__ == "__main__":
    app()

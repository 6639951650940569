"""Plot the detection error trade-off of systems on one list of trials."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure
from etaflow.figures.det import plot_verification_det
from etaflow.manifest import read_table
from etaflow.script import new_app
from etaflow.trials import read_trials_table

app = new_app()


@app.command()
def main(
    scores: Annotated[list[Path], typer.Argument(help="of the list, each in its system's folder")],
    metrics: Annotated[Path, typer.Option(help="figures of all systems, for their weights")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw one curve a system."""
    weights = read_table(metrics).groupby("system")["weights"].first()
    tables = {
        labelled(path.parent.name, weights[path.parent.name]): read_trials_table(path)
        for path in scores
    }
    save_figure(plot_verification_det(tables), output)


if __name__ == "__main__":
    app()

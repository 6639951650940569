"""Plot the explained variance of the PCAs of the speaker embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.eta import Pca
from etaflow.figures.base import save_figure
from etaflow.figures.eta import plot_scree
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    pcas: Annotated[list[Path], typer.Argument(help="PCA files, each in its Eta model's folder")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw all PCAs into one scree plot."""
    save_figure(
        plot_scree({path.parent.name: Pca.load(path).explained_variance_ratio for path in pcas}),
        output,
    )


if __name__ == "__main__":
    app()

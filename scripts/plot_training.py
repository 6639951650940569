"""Plot the curves of trainings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure
from etaflow.figures.training import plot_training
from etaflow.manifest import read_table
from etaflow.script import new_app

app = new_app()


def weights_of(folder: Path) -> str:
    """The label of what a training left; a vocoder's is that of the features it was trained on."""
    model = folder / "model.json"
    if model.is_file():
        return json.loads(model.read_text(encoding="utf-8"))["weights"]
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["trained_on"]["weights"]


@app.command()
def main(
    metrics: Annotated[
        list[Path],
        typer.Argument(help="metrics.tsv, each in the folder of the model that was trained"),
    ],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw one panel a metric."""
    histories = {}
    for path in metrics:
        histories[labelled(path.parent.name, weights_of(path.parent))] = read_table(
            path, ("step", "value")
        )
    save_figure(plot_training(histories), output)


if __name__ == "__main__":
    app()

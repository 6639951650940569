"""Plot the training curves of the vocoders."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures import labelled, plot_training, save_figure
from etaflow.manifest import read_table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    metrics: Annotated[
        list[Path], typer.Argument(help="metrics.tsv, each in its vocoder's folder")
    ],
    output: Annotated[Path, typer.Option(help="SVG to write")],
) -> None:
    """Draw one panel a metric."""
    histories = {}
    for path in metrics:
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        label = labelled(path.parent.name, config["trained_on"]["weights"])
        histories[label] = read_table(path, ("step", "value"))
    save_figure(plot_training(histories), output)


if __name__ == "__main__":
    app()

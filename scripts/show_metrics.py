"""Print tables of metrics."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.evaluation.tables import format_metrics_table
from etaflow.manifest import read_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(metrics: Annotated[list[Path], typer.Argument(help="TSVs of metrics")]) -> None:
    """Print tables of metrics."""
    for path in metrics:
        print(format_metrics_table(read_table(path)))


if __name__ == "__main__":
    app()

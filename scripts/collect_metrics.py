"""Put the metrics of several systems into one table."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.evaluation.tables import concatenate_metrics
from etaflow.manifest import write_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    metrics: Annotated[
        list[Path],
        typer.Option(
            help="TSV of a system, on a list or a set if there are several; repeat, in order"
        ),
    ],
    output: Annotated[Path, typer.Option(help="TSV to write")],
) -> None:
    """Put the metrics of several systems into one table."""
    write_table(concatenate_metrics(metrics), output)


if __name__ == "__main__":
    app()

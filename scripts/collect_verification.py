"""Put the figures of verification of several systems and lists into one table."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.evaluation.tables import concatenate_metrics
from etaflow.manifest import write_table
from etaflow.verification import COLUMNS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    metrics: Annotated[list[Path], typer.Option(help="TSV of a system on a list; repeat")],
    output: Annotated[Path, typer.Option(help="TSV to write")],
) -> None:
    """Put the figures of verification of several systems and lists into one table."""
    write_table(concatenate_metrics(metrics, COLUMNS), output)


if __name__ == "__main__":
    app()

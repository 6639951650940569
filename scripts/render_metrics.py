"""Render the metrics of all systems as a page."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.manifest import read_table
from etaflow.pages import metrics_page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    metrics: Annotated[Path, typer.Argument(help="metrics.tsv of all systems")],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write one row a system, one column a metric."""
    table = read_table(metrics, ("value", "low", "high", "n"))
    write_text(output, metrics_page(title, table))


if __name__ == "__main__":
    app()

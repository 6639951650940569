"""Render the metrics of all systems as a page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.evaluation.protocol import PUBLISHED, run_protocol
from etaflow.manifest import read_table
from etaflow.pages.conversion import metrics_page
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    metrics: Annotated[Path, typer.Argument(help="metrics.tsv of all systems")],
    config: Annotated[
        str, typer.Option(help="JSON: systems (shown), corpus, judge, asr, bootstrap_rounds")
    ],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write one row a system, one column a metric; below it, apart, published figures."""
    settings = json.loads(config)
    table = read_table(metrics, ("value", "low", "high", "n"))
    table = table[table["system"].isin(settings["systems"])]
    page = metrics_page(title, table, run_protocol(settings, table), PUBLISHED)
    write_text(output, page)


if __name__ == "__main__":
    app()

"""Render the probes of all Eta models as a page."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.manifest import read_table
from etaflow.pages import probe_page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
NUMBERS = (
    "accuracy",
    "low",
    "high",
    "chance",
    "majority",
    "n",
    "utterances",
    "classes",
    "speakers_in_fit",
)


@app.command()
def main(
    probes: Annotated[list[Path], typer.Argument(help="probe.tsv, each in its Eta model's folder")],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write one row a probe, raw and η side by side."""
    tables = {path.parent.name: read_table(path, NUMBERS) for path in probes}
    write_text(output, probe_page(title, tables))


if __name__ == "__main__":
    app()

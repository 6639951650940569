"""Render the probes of all Eta models as a page."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.pages.probe import probe_page
from etaflow.probe import read_probes
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    probes: Annotated[list[Path], typer.Argument(help="probe.tsv, each in its Eta model's folder")],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write one row a probe, raw and η side by side."""
    tables = {path.parent.name: read_probes(path) for path in probes}
    write_text(output, probe_page(title, tables))


if __name__ == "__main__":
    app()

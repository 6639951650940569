"""Fetch one of LibriMix's tables of mixtures."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.corpora.librimix import METADATA, fetch_metadata
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    name: Annotated[str, typer.Option(help=", ".join(METADATA))],
    record: Annotated[Path, typer.Option(help="JSON of checksums of first downloads")],
    output: Annotated[Path, typer.Option(help="CSV to write")],
) -> None:
    """Fetch a table of mixtures, whole or not at all."""
    fetch_metadata(name, output, record)


if __name__ == "__main__":
    app()

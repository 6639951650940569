"""Fetch a corpus, or make it, and say what is there."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_json
from etaflow.corpora import fetch, inventory
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: the corpus's entry in the config")],
    root: Annotated[Path, typer.Option(help="folder to fetch to")],
    output: Annotated[Path, typer.Option(help="JSON: kind, number of files, digest")],
    threads: Annotated[int, typer.Option(help="speakers synthesised at a time")] = 1,
) -> None:
    """Fetch or make a corpus; write its inventory once it is complete."""
    entry = json.loads(config)
    fetch(entry, root, workers=threads)
    write_json(output, inventory(entry, root))


if __name__ == "__main__":
    app()

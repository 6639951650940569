"""Fetch the noise of mixtures."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_json
from etaflow.corpora.librimix import fetch_noise
from etaflow.script import new_app
from etaflow.separation.noise import list_noises

app = new_app()


@app.command()
def main(
    root: Annotated[Path, typer.Option(help="folder to fetch to")],
    output: Annotated[Path, typer.Option(help="JSON: number of files")],
) -> None:
    """Fetch WHAM!'s noise, and say once it is complete how many files there are."""
    fetch_noise(root)
    write_json(output, {"files": len(list_noises(root))})


if __name__ == "__main__":
    app()

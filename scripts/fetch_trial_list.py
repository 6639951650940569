"""Fetch a published list of verification trials."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.corpora.trial_lists import TRIAL_LISTS, fetch_trial_list
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    name: Annotated[str, typer.Option(help=", ".join(TRIAL_LISTS))],
    output: Annotated[Path, typer.Option(help="text file to write")],
) -> None:
    """Fetch a trial list, whole and verified or not at all."""
    fetch_trial_list(name, output)


if __name__ == "__main__":
    app()

"""Bring one model of the registry into a folder of its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.fetching import fetch_model
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    name: Annotated[str, typer.Option(help="the model's name in the config")],
    config: Annotated[str, typer.Option(help="JSON: the model's entry in the config")],
    output: Annotated[Path, typer.Option(help="model.json of the folder to write")],
) -> None:
    """Fetch or make a model, whole or not at all."""
    info = fetch_model(name, json.loads(config), output.parent)
    typer.echo(f"{name}: {info.source} {info.revision}, {info.weights} weights", err=True)


if __name__ == "__main__":
    app()

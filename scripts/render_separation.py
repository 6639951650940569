"""Render the figures of separation as a page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.evaluation.separation import (
    BASELINE,
    PUBLISHED,
    excluded_words,
    mixtures_words,
    system_words,
)
from etaflow.manifest import read_table
from etaflow.pages.separation import separation_page
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    metrics: Annotated[Path, typer.Argument(help="figures of all systems and sets of mixtures")],
    mixtures: Annotated[
        str,
        typer.Option(
            help="JSON: of each set's name corpus and seed, or metadata; part, speakers, "
            "sample_rate, mode, kind and, of kinds with noise, noise"
        ),
    ],
    systems: Annotated[
        str,
        typer.Option(
            help="JSON: of each system's name separator, resample, before, origin and "
            "mixtures_trained_on"
        ),
    ],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
    excluded: Annotated[
        list[str] | None,
        typer.Option(help="SET=TSV of the mixtures left out of a set, and reasons; one a set"),
    ] = None,
) -> None:
    """Write a table of systems for each set of mixtures; below them, apart, published scores."""
    table = read_table(metrics, ("value", "low", "high", "n"))
    sets = {name: mixtures_words(entry) for name, entry in json.loads(mixtures).items()}
    for each in excluded or []:
        name, _, path = each.partition("=")
        if name not in sets:
            raise typer.BadParameter(f"--excluded {each}: no set of mixtures is named {name!r}")
        words = excluded_words(read_table(path))
        sets[name] += f"; {words}" if words else ""
    entries = json.loads(systems)
    words = {name: system_words(name, entry) for name, entry in ({BASELINE: {}} | entries).items()}
    before = {name: entry["before"] for name, entry in entries.items()}
    write_text(output, separation_page(title, table, sets, words, before, PUBLISHED))


if __name__ == "__main__":
    app()

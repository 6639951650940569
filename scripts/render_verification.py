"""Render the figures of speaker verification as a page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.evaluation.verification import PUBLISHED, calibration_words, system_words, trials_words
from etaflow.manifest import read_table
from etaflow.pages.verification import verification_page
from etaflow.script import new_app
from etaflow.verification import Calibration

app = new_app()


@app.command()
def main(
    metrics: Annotated[Path, typer.Argument(help="figures of all systems and lists")],
    summaries: Annotated[
        list[Path], typer.Option("--summary", help="JSON of a list, named like it; repeat")
    ],
    systems: Annotated[
        str,
        typer.Option(
            help="JSON: of each system's name its encoder, max_seconds and as_norm, or average; "
            "and corpora, those that its encoder is trained on here"
        ),
    ],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
    calibrations: Annotated[
        list[Path] | None,
        typer.Option("--calibration", help="JSON, in the folder of its system; repeat"),
    ] = None,
) -> None:
    """Write a table of systems for each list of trials; below them, apart, published rates."""
    table = read_table(metrics, ("value", "low", "high", "n"))
    lists = {path.stem: trials_words(json.loads(path.read_text())) for path in summaries}
    words = {
        name: system_words(entry, entry["corpora"]) for name, entry in json.loads(systems).items()
    }
    for path in calibrations or []:
        calibration = Calibration.read(path)
        by = calibration_words(calibration.fitted_on, calibration.features)
        words[path.parent.name] += f"; calibrated on {by}"
    write_text(output, verification_page(title, table, lists, PUBLISHED, words))


if __name__ == "__main__":
    app()

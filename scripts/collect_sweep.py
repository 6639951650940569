"""Gather what a sweep over Eta models found in one table."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from etaflow.manifest import write_table
from etaflow.probe import read_probes
from etaflow.script import new_app

app = new_app()
COLUMNS = [
    "axis",
    "value",
    "eta",
    "probe",
    "features",
    "unit",
    "result",
    "low",
    "high",
    "chance",
    "n",
    "speakers_in_fit",
    "weights",
]


@app.command()
def main(
    entry: Annotated[list[str], typer.Option(help="AXIS=VALUE=FOLDER of an Eta model")],
    output: Annotated[Path, typer.Option(help="TSV to write")],
    probes: Annotated[bool, typer.Option(help="each folder has a probe.tsv, too")] = False,
) -> None:
    """Write R² and the probes of each entry, one row a figure, in per cent."""
    rows = []
    for each in entry:
        axis, value, place = each.split("=", 2)
        folder = Path(place)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shared = (axis, value, folder.name)
        for features, name in (("fitted", "r2"), ("held out", "r2_held_out")):
            if config[name] is not None:
                figures = (100 * config[name], "", "", "", config[f"frames_{name}"], "")
                rows.append((*shared, "R²", features, "frame", *figures, config["weights"]))
        if probes:
            for line in read_probes(folder / "probe.tsv").itertuples():
                figures = (line.accuracy, line.low, line.high, line.chance, line.n)
                figures += (line.speakers_in_fit,)
                rows.append((*shared, line.probe, line.features, line.unit, *figures, line.weights))
    write_table(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    app()

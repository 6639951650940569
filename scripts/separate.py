"""Separate the mixtures of a table with a system."""

import json
from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.device import select_device
from etaflow.manifest import write_table
from etaflow.models import read_model_info
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.separation.estimates import check_separator, write_estimates
from etaflow.separation.networks import load_separator
from etaflow.separation.tables import read_mixtures

app = new_app()


@app.command()
def main(
    system: Annotated[str, typer.Option(help="name of the system")],
    config: Annotated[str, typer.Option(help="JSON: resample")],
    model: Annotated[Path, typer.Option(help="model.json of the separator")],
    mixtures: Annotated[list[Path], typer.Option(help="TSV of mixtures; repeat for each shard")],
    folder: Annotated[Path, typer.Option(help="folder to write the estimates to")],
    output: Annotated[Path, typer.Option(help="separated.tsv to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
    threads: Annotated[int, typer.Option(help="that read mixtures")] = 2,
) -> None:
    """Write a float WAV an estimate, as loud as the network makes it, and the table of them.

    A journal in the folder says which estimates are there: a killed run goes on where it was.
    """
    table = read_mixtures(mixtures)
    info, network = load_separator(model.parent)
    check_separator(info.name, network, table, json.loads(config)["resample"])
    network.to(select_device(gpus))
    # The mixtures' checksums stand in their table.
    weights = sorted(path for path in read_model_info(model.parent)[1].iterdir() if path.is_file())
    code = source_files(__file__, Path(etaflow.__path__[0]))
    key = fingerprint(config, model, *weights, *code)
    separated = write_estimates(
        network, table, folder, key, info.weights, f"{system}: separating", threads
    )
    write_table(separated, output)


if __name__ == "__main__":
    app()

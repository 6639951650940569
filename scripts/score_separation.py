"""Score what a system made of mixtures, or the mixtures themselves."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from etaflow.manifest import write_table
from etaflow.models import worst_weights
from etaflow.script import new_app
from etaflow.separation.figures import separation_metrics
from etaflow.separation.scores import check_unseen, score_mixtures, scores_before
from etaflow.separation.tables import read_mixtures, read_separated, speakers_of_mixtures

app = new_app()


@app.command()
def main(
    system: Annotated[str, typer.Option(help="name of the system")],
    mixtures_name: Annotated[str, typer.Option(help="name of the mixtures")],
    config: Annotated[str, typer.Option(help="JSON: bootstrap_rounds, seed")],
    mixtures: Annotated[list[Path], typer.Option(help="TSV of mixtures; repeat for each shard")],
    output: Annotated[Path, typer.Option(help="TSV to write: a row a source of each mixture")],
    metrics: Annotated[Path, typer.Option(help="TSV to write: a row a figure")],
    excluded: Annotated[Path, typer.Option(help="TSV to write: mixture_ID reason")],
    separated: Annotated[
        Path | None, typer.Option(help="separated.tsv; without it the mixtures are scored")
    ] = None,
    separator: Annotated[
        Path | None,
        typer.Option(help="config.json of the separator, for the speakers of its training"),
    ] = None,
    before: Annotated[Path | None, typer.Option(help="TSV of the scores of another system")] = None,
    threads: Annotated[int, typer.Option(help="CPU cores given to this job")] = 1,
) -> None:
    """Score each source's estimate by SI-SNR and SDR, and average."""
    if before and not separated:
        raise typer.BadParameter("mixtures as such have no gain", param_hint="--before")
    torch.set_num_threads(1)  # many short computations: one thread each, and a mixture a thread
    settings = json.loads(config)
    table = read_mixtures(mixtures)
    if separator:
        check_unseen(separator, speakers_of_mixtures(table), system)
    estimates = read_separated(separated, table) if separated else None
    scores, left_out = score_mixtures(table, estimates, f"{system}: scoring", threads)
    scores = scores.round(6)
    figures = separation_metrics(
        (system, mixtures_name),
        scores,
        "trained" if estimates is None else worst_weights(list(estimates["weights"])),
        scores_before(before, scores) if before else None,
        settings["bootstrap_rounds"],
        settings["seed"],
    )
    write_table(scores, output)
    write_table(left_out, excluded)
    write_table(figures, metrics)


if __name__ == "__main__":
    app()

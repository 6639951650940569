"""Score a list of trials with a system, and say how well it tells speakers apart."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from etaflow.manifest import read_manifest, read_table, write_table
from etaflow.models import worst_weights
from etaflow.script import new_app
from etaflow.store import Embeddings
from etaflow.trials import COLUMNS, TrialsError, read_trials_table, speakers_of
from etaflow.verification import TrialSet, average_scores, verification_metrics

app = new_app()


def _require(why: str, **options: Any) -> None:
    absent = [f"--{name.replace('_', '-')}" for name, value in options.items() if not value]
    if absent:
        raise typer.BadParameter(f"{why} needs {', '.join(absent)}")


def _averaged(trials: Path, scores: list[Path], metrics: list[Path]) -> tuple[pd.DataFrame, str]:
    table = average_scores([read_trials_table(path) for path in scores])
    if not table[COLUMNS].equals(read_trials_table(trials)[COLUMNS]):
        raise TrialsError(f"{scores[0]}: scores of other trials than {trials}")
    labels = [label for path in metrics for label in read_table(path)["weights"]]
    return table, worst_weights(labels)


@app.command()
def main(
    system: Annotated[str, typer.Option(help="Name of the system")],
    trials_name: Annotated[str, typer.Option(help="Name of the list of trials")],
    config: Annotated[
        str, typer.Option(help="JSON: max_seconds, as_norm, calibration, bootstrap_rounds, seed")
    ],
    manifest: Annotated[Path, typer.Option(help="Manifest of the trials' corpus")],
    trials: Annotated[Path, typer.Option(help="TSV of trials: enrolment test target")],
    output: Annotated[Path, typer.Option(help="TSV to write: the trials and their score")],
    metrics: Annotated[Path, typer.Option(help="TSV to write: a row a figure")],
    embeddings: Annotated[Path | None, typer.Option(help="HDF5 of the trials' corpus")] = None,
    cohort: Annotated[Path | None, typer.Option(help="HDF5 of the cohort's corpus")] = None,
    cohort_manifest: Annotated[Path | None, typer.Option(help="its manifest")] = None,
    calibration_trials: Annotated[Path | None, typer.Option(help="TSV of other trials")] = None,
    calibration_embeddings: Annotated[Path | None, typer.Option(help="HDF5 of them")] = None,
    calibration_manifest: Annotated[Path | None, typer.Option(help="their manifest")] = None,
    calibration_output: Annotated[Path | None, typer.Option(help="JSON to write")] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="TSV of a system's scores to average; repeat")
    ] = None,
    score_metrics: Annotated[
        list[Path] | None, typer.Option(help="TSV of its metrics, for its weights; repeat")
    ] = None,
) -> None:
    """Score trials by cosine, or average the scores of systems, and measure the errors."""
    settings = json.loads(config)
    calibration = settings.get("calibration")
    if scores:
        _require("an average", score_metrics=score_metrics)
        if embeddings or settings.get("as_norm") or calibration:
            raise typer.BadParameter("an average has no embeddings, as_norm or calibration")
        table, weights = _averaged(trials, scores, score_metrics)
        speakers = speakers_of(table, read_manifest(manifest))
    else:
        _require("a system that is no average", embeddings=embeddings)
        seconds = settings["max_seconds"]
        scored = TrialSet.read(trials_name, trials, manifest, embeddings, seconds)
        weights, speakers = scored.embeddings.weights, scored.speakers
        others, topk = None, 0
        if settings["as_norm"]:
            _require("as_norm", cohort=cohort, cohort_manifest=cohort_manifest)
            others = scored.cohort(Embeddings.read(cohort), read_manifest(cohort_manifest))
            topk = settings["as_norm"]["topk"]
        values = scored.scores(others, topk)
        if calibration:
            files = {
                "calibration_trials": calibration_trials,
                "calibration_manifest": calibration_manifest,
                "calibration_embeddings": calibration_embeddings,
            }
            _require("calibration", **files, calibration_output=calibration_output)
            fitted_on = TrialSet.read(calibration["trials"], *files.values(), seconds)
            fitted = scored.calibration(fitted_on, calibration["quality"], others, topk)
            fitted.write(calibration_output)
            values = fitted.llrs(values, scored.quality(calibration["quality"]))
        table = scored.trials[COLUMNS].assign(score=values)
    figures = verification_metrics(
        (system, trials_name),
        table["score"],
        table["target"],
        speakers,
        weights,
        bool(calibration),
        settings["bootstrap_rounds"],
        settings["seed"],
    )
    write_table(table.round({"score": 6}), output)
    write_table(figures, metrics)


if __name__ == "__main__":
    app()

"""Score a list of trials with a system, and say how well it tells speakers apart."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer

from etaflow.manifest import read_manifest, read_table, write_table
from etaflow.models import worst_weights
from etaflow.store import Embeddings, StoreError
from etaflow.trials import COLUMNS, TrialsError, read_trials_table, speakers_of
from etaflow.verification import (
    Calibration,
    Cohort,
    as_norm,
    average_scores,
    cosine_scores,
    pair_quality,
    require_strangers,
    verification_metrics,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Scored:
    """Trials with what they are scored by."""

    trials: pd.DataFrame
    manifest: pd.DataFrame
    embeddings: Embeddings

    @classmethod
    def read(cls, trials: Path, manifest: Path, embeddings: Path) -> "Scored":
        return cls(read_trials_table(trials), read_manifest(manifest), Embeddings.read(embeddings))

    @property
    def speakers(self) -> npt.NDArray[np.str_]:
        return speakers_of(self.trials, self.manifest)

    def scores(self, settings: dict[str, Any], cohort: Cohort | None) -> npt.NDArray[np.float64]:
        cosines = cosine_scores(self.trials, self.embeddings)
        if cohort is None:
            return cosines
        topk = settings["as_norm"]["topk"]
        return as_norm(self.trials, cosines, self.embeddings, cohort, topk)

    def quality(self, names: list[str]) -> pd.DataFrame:
        return pair_quality(names, self.trials, self.embeddings, self.manifest)


def _required(options: dict[str, Any], why: str) -> None:
    if absent := [name for name, value in options.items() if not value]:
        raise typer.BadParameter(f"{why} needs {', '.join(absent)}")


def _same_encoder(one: Embeddings, other: Embeddings, path: Path) -> None:
    if (one.encoder, one.vectors.shape[1]) != (other.encoder, other.vectors.shape[1]):
        raise StoreError(
            f"{path}: embeddings by {other.encoder}, those of the trials {one.encoder}"
        )


def _cohort(scored: Scored, path: Path, manifest: Path) -> Cohort:
    embeddings = Embeddings.read(path)
    _same_encoder(scored.embeddings, embeddings, path)
    cohort = Cohort.of_training(embeddings, read_manifest(manifest))
    require_strangers(scored.speakers.ravel(), cohort.speakers, "the cohort")
    return cohort


def _calibration(
    scored: Scored, other: Scored, settings: dict[str, Any], cohort: Cohort | None
) -> Calibration:
    name, quality = settings["calibration"]["trials"], settings["calibration"]["quality"]
    if other.trials[COLUMNS].equals(scored.trials[COLUMNS]):
        raise TrialsError(f"calibration on the very trials that are scored ({name}) is no test")
    where = f"the calibration trials {name}"
    require_strangers(scored.speakers.ravel(), other.speakers.ravel(), where)
    return Calibration.fit(
        other.scores(settings, cohort),
        other.trials["target"],
        other.quality(quality),
        {"trials": name, "encoder": other.embeddings.encoder, "as_norm": settings["as_norm"]},
    )


@app.command()
def main(
    system: Annotated[str, typer.Option(help="Name of the system")],
    trials_name: Annotated[str, typer.Option(help="Name of the list of trials")],
    config: Annotated[str, typer.Option(help="JSON: as_norm, calibration, bootstrap_rounds, seed")],
    manifest: Annotated[Path, typer.Option(help="Manifest of the trials' corpus")],
    trials: Annotated[Path, typer.Option(help="TSV of trials: enrolment test target")],
    output: Annotated[Path, typer.Option(help="TSV to write: the trials and their score")],
    metrics: Annotated[Path, typer.Option(help="TSV to write: a row a figure")],
    embeddings: Annotated[Path | None, typer.Option(help="HDF5 of the trials' corpus")] = None,
    cohort: Annotated[Path | None, typer.Option(help="HDF5 of the cohort's corpus")] = None,
    cohort_manifest: Annotated[Path | None, typer.Option(help="Its manifest")] = None,
    calibration_trials: Annotated[Path | None, typer.Option(help="TSV of other trials")] = None,
    calibration_embeddings: Annotated[
        Path | None, typer.Option(help="HDF5 of their corpus")
    ] = None,
    calibration_manifest: Annotated[Path | None, typer.Option(help="Its manifest")] = None,
    calibration_output: Annotated[Path | None, typer.Option(help="JSON to write")] = None,
    scores: Annotated[
        list[Path] | None, typer.Option(help="TSV of a system's scores to average; repeat")
    ] = None,
    score_metrics: Annotated[
        list[Path] | None, typer.Option(help="TSV of that system's metrics, for its weights")
    ] = None,
) -> None:
    """Score trials by cosine, or average the scores of systems; then the figures."""
    settings = json.loads(config)
    calibrated = False
    if scores:
        _required({"--score-metrics": score_metrics}, "an average")
        if embeddings or settings.get("as_norm") or settings.get("calibration"):
            raise typer.BadParameter("an average has no embeddings, as_norm or calibration")
        table = average_scores([read_trials_table(path) for path in scores])
        if not table[COLUMNS].equals(read_trials_table(trials)[COLUMNS]):
            raise TrialsError(f"the scores are of other trials than {trials}")
        labels = [label for path in score_metrics or [] for label in read_table(path)["weights"]]
        weights = worst_weights(labels)
        speakers = speakers_of(table, read_manifest(manifest))
    else:
        _required({"--embeddings": embeddings}, "a system that is no average")
        scored = Scored.read(trials, manifest, embeddings)
        weights, speakers = scored.embeddings.weights, scored.speakers
        others = None
        if settings["as_norm"]:
            _required({"--cohort": cohort, "--cohort-manifest": cohort_manifest}, "as_norm")
            others = _cohort(scored, cohort, cohort_manifest)
        values = scored.scores(settings, others)
        if settings["calibration"]:
            paths = {
                "--calibration-trials": calibration_trials,
                "--calibration-manifest": calibration_manifest,
                "--calibration-embeddings": calibration_embeddings,
            }
            _required({**paths, "--calibration-output": calibration_output}, "calibration")
            fitted_on = Scored.read(*paths.values())
            _same_encoder(scored.embeddings, fitted_on.embeddings, calibration_embeddings)
            calibration = _calibration(scored, fitted_on, settings, others)
            calibration.write(calibration_output)
            values = calibration.llrs(values, scored.quality(settings["calibration"]["quality"]))
            calibrated = True
        table = scored.trials[COLUMNS].assign(score=values)
    figures = verification_metrics(
        (system, trials_name),
        table["score"],
        table["target"],
        speakers,
        weights,
        calibrated,
        settings["bootstrap_rounds"],
        settings["seed"],
    )
    write_table(table.round({"score": 6}), output)
    write_table(figures, metrics)


if __name__ == "__main__":
    app()

"""Gather what verifies speakers: an encoder, a threshold or calibration, and a card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub import ModelCardData

import etaflow
from etaflow.atomic import atomic_directory, write_json, write_text
from etaflow.fetching import copy_model
from etaflow.manifest import read_table
from etaflow.metrics import equal_error_rate
from etaflow.models import read_model_info, worst_weights
from etaflow.script import new_app
from etaflow.trials import TrialsError, read_trials_table
from etaflow.verification import Calibration
from etaflow.verification.verifier import CONFIG, ENCODER, FORMAT

app = new_app()

CARD = """---
{front_matter}
---

# Speaker verifier `{name}` of the run `{run}`

{warning}Says whether two recordings are of one speaker. Made by etaflow {version}.

    etaflow verify ONE.wav OTHER.wav --bundle FOLDER

```python
from etaflow.audio import read_audio
from etaflow.verification.verifier import Verifier

verifier = Verifier.from_pretrained("FOLDER")
decision = verifier.score(read_audio("one.wav"), read_audio("other.wav"))
print(decision.score, decision.same_speaker)
```

- Encoder: {encoder}, {weights} weights (source {source}, revision `{revision}`).
- Score: {score}.
- Threshold: {threshold:.6g}, {how}
- Equal error rate on the trials `{eer_trials}`: {eer:.2f} %{same}.
- Corpora that it was trained, calibrated or measured on: {corpora}.

A threshold suits recordings like those that it was set on. Other languages, microphones or
lengths move the scores: measure on recordings of your own before you rely on it. It tells nothing
of copied, converted or synthetic voices.
"""

WARNING = """> **Warning: untrained weights.** Its decisions say that the workflow runs, and nothing
> about speakers.

"""


def chosen_row(metrics: Path, system: str, trials: str) -> Any:
    """The row of the system's equal error rate on a list of trials."""
    table = read_table(metrics, ("value",))
    rows = table[
        (table["system"] == system) & (table["trials"] == trials) & (table["metric"] == "eer")
    ]
    if len(rows) != 1:
        raise TrialsError(
            f"{metrics}: {len(rows)} rows of the eer of {system} on {trials}; there has to be one"
        )
    return rows.iloc[0]


@app.command()
def main(
    system: Annotated[str, typer.Option(help="name of the system")],
    encoder: Annotated[Path, typer.Option(help="model.json of its encoder")],
    metrics: Annotated[Path, typer.Option(help="TSV of the system's metrics")],
    trials: Annotated[Path, typer.Option(help="TSV of its scores: enrolment test target score")],
    config: Annotated[
        str,
        typer.Option(
            help="JSON: run, trials (name of the list), corpora (names), as_norm (of the system), "
            "max_seconds (of a recording that are heard; null: all)"
        ),
    ],
    output_dir: Annotated[Path, typer.Option(help="folder to write")],
    calibration: Annotated[
        Path | None, typer.Option(help="JSON of its calibration, if it has one")
    ] = None,
) -> None:
    """Write a folder that `etaflow verify` and `Verifier.from_pretrained` load."""
    settings = json.loads(config)
    if settings["as_norm"]:
        raise TrialsError(
            f"{system} normalises scores with a cohort, which a verifier does not have; bundle a "
            "system without as_norm"
        )
    row = chosen_row(metrics, system, settings["trials"])
    fitted = Calibration.read(calibration) if calibration else None
    by = read_model_info(encoder.parent)[0].name
    if fitted and fitted.fitted_on["encoder"] != by:
        raise TrialsError(
            f"{calibration} is of scores by {fitted.fitted_on['encoder']}, the encoder is {by}"
        )
    scored = read_trials_table(trials)
    if fitted:
        # Its log-likelihood ratios are cut where both kinds of error weigh the same.
        threshold, name = 0.0, fitted.fitted_on["trials"]
        counts = {key: fitted.fitted_on[key] for key in ("targets", "nontargets")}
    else:
        _, threshold = equal_error_rate(scored["score"], scored["target"])
        name, targets = settings["trials"], int(scored["target"].sum())
        counts = {"targets": targets, "nontargets": len(scored) - targets}
    with atomic_directory(output_dir) as part:
        (part / ENCODER).mkdir()
        info = copy_model(encoder, part / ENCODER)
        weights = worst_weights([info.weights, row["weights"]])
        write_json(
            part / CONFIG,
            {
                "format": FORMAT,
                "name": system,
                "encoder": info.name,
                "threshold": threshold,
                "calibration": asdict(fitted) if fitted else None,
                "max_seconds": settings["max_seconds"],
                "trials": {
                    "run": settings["run"],
                    "name": name,
                    **counts,
                    "corpora": settings["corpora"],
                    "eer": float(row["value"]),
                    "eer_trials": settings["trials"],
                    "weights": weights,
                },
            },
        )
        tags = ["speaker-verification", *["untrained"] * (weights == "untrained")]
        card = ModelCardData(library_name="etaflow", tags=tags)
        number = f"{counts['targets']} target and {counts['nontargets']} non-target trials"
        how = (
            f"of log-likelihood ratios calibrated on `{name}` ({number}); 0 is right where "
            "both kinds of trial are as frequent, and both kinds of error as dear."
            if fitted
            else f"where both kinds of error are as frequent on `{name}` ({number})."
        )
        write_text(
            part / "README.md",
            CARD.format(
                front_matter=card.to_yaml(),
                name=system,
                run=settings["run"],
                warning=WARNING if weights == "untrained" else "",
                version=etaflow.__version__,
                encoder=info.name,
                weights=info.weights,
                source=info.source,
                revision=info.revision,
                score="log-likelihood ratio" if fitted else "cosine of the embeddings",
                threshold=threshold,
                how=how,
                eer_trials=settings["trials"],
                eer=float(row["value"]),
                same="" if fitted else ", the trials that the threshold was set on",
                corpora=", ".join(f"`{corpus}`" for corpus in settings["corpora"]),
            ),
        )


if __name__ == "__main__":
    app()

"""Gather what a user takes away from a run: models, Eta, vocoder, and a card."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import atomic_directory, write_json, write_text
from etaflow.converter import BUNDLE_FORMAT
from etaflow.evaluation.tables import format_metrics_table
from etaflow.manifest import read_table
from etaflow.models import read_model_info, worst_weights

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def copy_model(model: Path, folder: Path) -> None:
    """Copy a model's files and its model.json, which then points to the copy."""
    info, files = read_model_info(model.parent)
    shutil.copytree(files, folder)
    write_json(folder / "model.json", {**vars(info), "path": "."})


@app.command()
def main(
    title: Annotated[str, typer.Option(help="name of the run")],
    ssl: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    speaker: Annotated[Path, typer.Option(help="model.json of the speaker encoder")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    vocoder: Annotated[Path, typer.Option(help="folder of the vocoder")],
    metrics: Annotated[Path, typer.Option(help="metrics.tsv of the run's conversions")],
    output: Annotated[Path, typer.Option(help="config.json of the bundle to write")],
) -> None:
    """Write a folder that `etaflow.VoiceConverter.from_pretrained` loads."""
    trained_on = json.loads((vocoder / "config.json").read_text(encoding="utf-8"))["trained_on"]
    fitted_on = json.loads((eta / "config.json").read_text(encoding="utf-8"))
    weights = worst_weights([trained_on["weights"], fitted_on["weights"]])
    with atomic_directory(output.parent) as part:
        copy_model(ssl, part / "ssl")
        copy_model(speaker, part / "speaker")
        (part / "eta").mkdir()
        for name in ("eta.safetensors", "config.json"):
            shutil.copy(eta / name, part / "eta" / name)
        shutil.copytree(vocoder, part / "vocoder")
        table = format_metrics_table(read_table(metrics, ("value", "low", "high", "n")))
        write_text(
            part / "README.md",
            f"# etaflow bundle of the run `{title}`\n\n"
            f"Vocoder and Eta model for {trained_on['model']} (revision {trained_on['revision']}), "
            f"layer {trained_on['layer']}, {weights} weights.\n\n"
            "    etaflow convert SOURCE.wav REFERENCE.wav -o OUT.wav --bundle .\n\n"
            f"The run's conversion metrics:\n\n```\n{table}\n```\n",
        )
        write_json(
            part / "config.json",
            {
                "format": BUNDLE_FORMAT,
                "run": title,
                "layer": trained_on["layer"],
                "normalize": trained_on["normalize"],
                "weights": weights,
            },
        )


if __name__ == "__main__":
    app()

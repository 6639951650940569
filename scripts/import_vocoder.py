"""Take over a vocoder that was trained elsewhere, with what it was trained on."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from etaflow.atomic import atomic_directory
from etaflow.models import read_model_info, worst_weights
from etaflow.script import new_app
from etaflow.vocoder import VocoderError
from etaflow.vocoder.pretrained import read_generator

app = new_app()


def check(known: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raise if what a vocoder is known to be trained on is not what the config takes it for."""
    for key in ("revision", "layer", "normalize", "features"):
        if key in known and known[key] != facts[key]:
            raise VocoderError(
                f"the features that the vocoder was trained on: {key} {known[key]!r}; those that "
                f"the config gives it: {key} {facts[key]!r}"
            )


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: {layer, normalize, features}")],
    vocoder: Annotated[Path, typer.Option(help="model.json of the vocoder")],
    model: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    output_dir: Annotated[Path, typer.Option(help="gets generator.safetensors, config.json")],
) -> None:
    """Write the vocoder as `train_vocoder` would have, on features of the SSL encoder."""
    info, files = read_model_info(vocoder.parent)
    ssl, ssl_files = read_model_info(model.parent)
    generator = read_generator(info, files)
    known = generator.trained_on
    facts = {"revision": ssl.revision, **json.loads(config)}
    check(known, facts)
    width = json.loads((ssl_files / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    if width != generator.config.feature_dim:
        raise VocoderError(
            f"{info.name} hears features of {generator.config.feature_dim} dimensions, "
            f"{ssl.name} gives {width}"
        )
    labels = [ssl.weights, info.weights, known.get("weights", info.weights)]
    with atomic_directory(output_dir) as part:
        generator.save_pretrained(
            part, **known | facts | {"model": ssl.name, "weights": worst_weights(labels)}
        )
    typer.echo(f"{info.name}: {generator.num_parameters():,} parameters", err=True)


if __name__ == "__main__":
    app()

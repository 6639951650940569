"""Fit the PCA of the training utterances' speaker embeddings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.eta import Pca
from etaflow.manifest import read_manifest, training_utterances
from etaflow.script import new_app
from etaflow.store import Embeddings

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: pca (components), utterances, seed")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of the corpus's embeddings")],
    output: Annotated[Path, typer.Option(help="safetensors file to write")],
) -> None:
    """Keep the first components of the embeddings."""
    settings = json.loads(config)
    train = training_utterances(read_manifest(manifest), settings["utterances"], settings["seed"])
    pca = Pca.fit(Embeddings.read(embeddings).rows(train), settings["pca"])
    pca.save(output)
    kept = pca.explained_variance_ratio.sum()
    typer.echo(f"{len(pca.components)} components keep {kept:.1%} of the variance", err=True)


if __name__ == "__main__":
    app()

"""Plot how an encoder sees speakers that it never trained on."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure, spread
from etaflow.figures.umap import plot_umap, utterance_umap
from etaflow.store import Embeddings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    embeddings: Annotated[Path, typer.Argument(help="HDF5 of validation utterances")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
    limit: Annotated[int, typer.Option(help="utterances to draw, at most", min=4)],
    seed: Annotated[int, typer.Option(help="of the UMAP")],
) -> None:
    """Draw a UMAP of utterances, coloured by speaker."""
    found = Embeddings.read(embeddings)
    chosen = spread(len(found.utterance_ids), limit)
    points = utterance_umap(found.vectors[chosen], seed)
    speakers = [found.speaker_ids[index] for index in chosen]
    note = f"{len(chosen)} of {len(found.utterance_ids)} validation utterances"
    save_figure(plot_umap({labelled(found.encoder, found.weights): points}, speakers, note), output)


if __name__ == "__main__":
    app()

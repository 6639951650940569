"""Plot how encoders see speakers that they never trained on."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.figures.base import labelled, save_figure, spread
from etaflow.figures.umap import LEAST, Map, plot_umap, utterance_umap
from etaflow.script import new_app
from etaflow.store import Embeddings

app = new_app()


class TooFewError(ValueError):
    """Too few utterances for a UMAP."""


def speaker_map(embeddings: Path, limit: int, seed: int) -> Map:
    """The map of one encoder's utterances, of which at most `limit` are drawn."""
    found = Embeddings.read(embeddings)
    chosen = spread(len(found.utterance_ids), limit)
    if len(chosen) < LEAST:
        raise TooFewError(
            f"{found.encoder}: {len(chosen)} validation utterances, fewer than {LEAST}"
        )
    amount = f"{len(chosen)} of {len(found.utterance_ids)} utterances"
    return Map(
        f"{labelled(found.encoder, found.weights)}\n{amount}",
        utterance_umap(found.vectors[chosen], seed),
        [found.speaker_ids[index] for index in chosen],
    )


@app.command()
def main(
    embeddings: Annotated[list[Path], typer.Argument(help="HDF5 of validation utterances, each")],
    output: Annotated[Path, typer.Option(help="SVG to write")],
    limit: Annotated[int, typer.Option(help="utterances to draw of each, at most", min=LEAST)],
    seed: Annotated[int, typer.Option(help="of the UMAPs")],
) -> None:
    """Draw a UMAP of utterances an encoder, coloured by speaker."""
    maps = []
    for path in embeddings:
        try:
            maps.append(speaker_map(path, limit, seed))
        except TooFewError as error:
            typer.echo(f"left out: {error}", err=True)
    if not maps:
        raise TooFewError("no encoder has enough validation utterances for a map")
    save_figure(plot_umap(maps, "utterances of validation speakers"), output)


if __name__ == "__main__":
    app()

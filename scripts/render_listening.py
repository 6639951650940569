"""Render a page of pairs to listen to."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_text
from etaflow.audio import read_audio
from etaflow.figures.base import labelled, spread
from etaflow.manifest import read_manifest, read_table
from etaflow.pages.listening import Cell, listening_page
from etaflow.pairs import recordings_of
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    converted: Annotated[
        list[Path], typer.Argument(help="converted.tsv, each in its system's folder")
    ],
    metrics: Annotated[Path, typer.Option(help="metrics.tsv of all systems, for their weights")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    title: Annotated[str, typer.Option(help="heading of the page")],
    pairs: Annotated[int, typer.Option(help="pairs shown, drawn evenly from all")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write source, a reference and every system, a pair a row."""
    corpus = read_manifest(manifest).set_index("utterance_id")
    tables = {path.parent.name: (path.parent, read_table(path)) for path in converted}
    weights = read_table(metrics).groupby("system")["weights"].first()
    by_pair = {
        labelled(name, weights[name]): {
            (row.source_id, row.target_speaker): folder / row.path for row in table.itertuples()
        }
        for name, (folder, table) in tables.items()
    }
    keys = sorted({key for files in by_pair.values() for key in files})
    conversions = [key for key in keys if corpus.loc[key[0], "speaker_id"] != key[1]]
    chosen = [conversions[index] for index in spread(len(conversions), pairs)]
    rows = []
    for source_id, target in chosen:
        source = corpus.loc[source_id]
        cells = {
            "source": Cell([("", read_audio(source["path"]))]),
            "reference": Cell(
                [("", read_audio(corpus.loc[recordings_of(target, corpus)[0], "path"]))]
            ),
        }
        for name, files in by_pair.items():
            # Systems without a target are listed under the source's own speaker.
            path = files.get((source_id, target)) or files.get((source_id, source["speaker_id"]))
            if path:
                cells[name] = Cell([("", read_audio(path))])
        rows.append((f"{source['speaker_id']} to {target}", source["text"], cells))
    note = (
        "Source and one of the target's recordings, resampled to 16 kHz, then each system. "
        f"{len(rows)} of {len(conversions)} pairs."
    )
    write_text(output, listening_page(title, rows, ["source", "reference", *by_pair], note))


if __name__ == "__main__":
    app()

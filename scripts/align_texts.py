"""Align the phones of each test utterance's text to its recording."""

from pathlib import Path
from typing import Annotated

import typer

from etaflow.alignment import align_files
from etaflow.corpora import rejection_summary
from etaflow.manifest import read_manifest, write_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus, with texts")],
    output: Annotated[Path, typer.Option(help="TSV: utterance_id start stop word phone")],
    rejected: Annotated[Path, typer.Option(help="TSV: utterance_id reason")],
    threads: Annotated[int, typer.Option(help="processes that align")] = 1,
) -> None:
    """Align the test utterances of a corpus, and list those that cannot be."""
    table = read_manifest(manifest)
    table = table[table["split"] == "test"]
    columns = (table[name].tolist() for name in ("utterance_id", "path", "text"))
    alignments, refused = align_files(*columns, workers=threads)
    write_table(refused, rejected)
    write_table(alignments, output)
    typer.echo(
        f"{len(table) - len(refused)} of {len(table)} utterances aligned"
        + (f"; left out: {rejection_summary(refused['reason'])}" if len(refused) else ""),
        err=True,
    )


if __name__ == "__main__":
    app()

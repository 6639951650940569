"""Write the mixtures of one shard of a metadata table."""

import json
from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.manifest import write_table
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.separation.mixing import Roots, read_metadata
from etaflow.separation.writing import write_mixtures

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: sample_rate, mode, kind, suffix")],
    metadata: Annotated[Path, typer.Option(help="CSV of LibriMix, or a generated one")],
    speech: Annotated[Path, typer.Option(help="folder that the paths of utterances start from")],
    folder: Annotated[Path, typer.Option(help="folder for the mixtures and their parts")],
    output: Annotated[Path, typer.Option(help="TSV of the mixtures to write")],
    noise: Annotated[
        Path | None, typer.Option(help="folder that the paths of noise start from")
    ] = None,
    shard: Annotated[int, typer.Option(help="number of this shard, from 0", min=0)] = 0,
    shards: Annotated[int, typer.Option(help="every so many rows make a shard", min=1)] = 1,
) -> None:
    """Mix speakers, and leave what is there already as it is.

    A journal in the folder says which mixtures are there and what their checksums are: a killed
    run goes on where it was, and a file that was damaged or removed is made again.
    """
    if shard >= shards:
        raise typer.BadParameter(f"shard {shard} of {shards}: they are numbered from 0")
    settings = json.loads(config)
    table = read_metadata(metadata).iloc[shard::shards]
    if table.empty:
        raise typer.BadParameter(f"{metadata} has fewer than {shard + 1} rows for {shards} shards")
    written = write_mixtures(
        table,
        Roots(speech, noise),
        folder,
        folder / "journal" / f"{metadata.stem}-{settings['kind']}-{shard}-of-{shards}.jsonl",
        **settings,
        key=fingerprint(config, *source_files(__file__, Path(etaflow.__path__[0]))),
    )
    write_table(written, output)


if __name__ == "__main__":
    app()

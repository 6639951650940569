"""Check every file of a corpus and build its manifest."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.corpora import build_manifest, rejection_summary
from etaflow.manifest import shard_names, write_manifest, write_table
from etaflow.script import new_app

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: the corpus's entry in the config")],
    root: Annotated[Path, typer.Option(help="folder that the corpus was fetched to")],
    manifest: Annotated[Path, typer.Option(help="TSV: the manifest")],
    recordings: Annotated[Path, typer.Option(help="TSV: the manifest without texts")],
    rejected: Annotated[Path, typer.Option(help="TSV: rejected files and why")],
    shard_dir: Annotated[Path, typer.Option(help="folder for SHARD.tsv, the manifest's parts")],
    threads: Annotated[int, typer.Option(help="processes that check files")] = 1,
) -> None:
    """Build the manifest of a corpus and its shards, and list the rejected files."""
    entry = json.loads(config)
    table, refused = build_manifest(entry, root, workers=threads)
    # What is computed from the audio alone need not run again for a corrected transcript.
    untold = table.assign(text="")
    for shard in shard_names(entry["shards"]):
        write_manifest(untold[untold["shard"] == shard], shard_dir / f"{shard}.tsv")
    write_manifest(untold, recordings)
    write_table(refused, rejected)
    write_manifest(table, manifest)
    hours = (table["num_samples"] / table["sample_rate"]).sum() / 3600
    typer.echo(
        f"{len(table)} utterances of {table['speaker_id'].nunique()} speakers, {hours:.2f} hours; "
        f"{len(refused)} files rejected"
        + (f": {rejection_summary(refused['reason'])}" if len(refused) else ""),
        err=True,
    )


if __name__ == "__main__":
    app()

"""Embed every utterance of a shard with a speaker encoder."""

from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.device import select_device
from etaflow.manifest import read_manifest
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.embedding import embed_recordings

app = new_app()


@app.command()
def main(
    manifest: Annotated[Path, typer.Option(help="manifest of the shard")],
    model: Annotated[Path, typer.Option(help="model.json of the speaker encoder")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    max_seconds: Annotated[
        float | None, typer.Option(help="embed so much of the beginning of each; all if not given")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
    threads: Annotated[int, typer.Option(help="that read recordings")] = 2,
) -> None:
    """Embed every utterance of a shard in batches of similar length."""
    encoder = load_speaker_encoder(model.parent, select_device(gpus))
    # The recordings' checksums stand in the manifest, the weights' revision in the model.
    code = source_files(__file__, Path(etaflow.__path__[0]))
    work = fingerprint(str(max_seconds), manifest, model, *code)
    embed_recordings(encoder, read_manifest(manifest), output, work, threads, max_seconds)


if __name__ == "__main__":
    app()

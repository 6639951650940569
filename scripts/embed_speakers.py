"""Embed every utterance of a corpus with a speaker encoder."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from etaflow.audio import read_audio
from etaflow.device import select_device
from etaflow.manifest import read_manifest
from etaflow.progress import bar
from etaflow.speaker import load_speaker_encoder
from etaflow.store import Embeddings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
BATCH = 64  # utterances


@app.command()
def main(
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    model: Annotated[Path, typer.Option(help="model.json of the speaker encoder")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Write one embedding an utterance, and each speaker's mean."""
    table = read_manifest(manifest)
    encoder = load_speaker_encoder(model.parent, select_device(gpus))
    vectors = []
    with bar(len(table), f"embeddings by {encoder.info.name}", "utterances") as shown:
        for start in range(0, len(table), BATCH):
            paths = table["path"].iloc[start : start + BATCH]
            vectors.append(encoder.embed([read_audio(path) for path in paths]))
            shown.update(len(paths))
    Embeddings(
        list(table["utterance_id"]),
        list(table["speaker_id"]),
        np.concatenate(vectors),
        encoder.info.name,
        encoder.info.weights,
    ).write(output)


if __name__ == "__main__":
    app()

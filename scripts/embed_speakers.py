"""Embed every utterance of a shard with a speaker encoder."""

from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.audio import SAMPLE_RATE, read_ahead, resampled_length
from etaflow.batches import similar_lengths
from etaflow.device import select_device
from etaflow.manifest import read_manifest
from etaflow.progress import bar
from etaflow.provenance import fingerprint, source_files
from etaflow.speaker import load_speaker_encoder
from etaflow.store import EmbeddingWriter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
BATCH_SECONDS = 120.0  # of audio, padding included


@app.command()
def main(
    manifest: Annotated[Path, typer.Option(help="manifest of the shard")],
    model: Annotated[Path, typer.Option(help="model.json of the speaker encoder")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
    threads: Annotated[int, typer.Option(help="that read recordings")] = 2,
) -> None:
    """Embed every utterance of a shard in batches of similar length."""
    table = read_manifest(manifest)
    encoder = load_speaker_encoder(model.parent, select_device(gpus))
    lengths = [
        resampled_length(count, rate)
        for count, rate in zip(table["num_samples"], table["sample_rate"], strict=True)
    ]
    with (
        EmbeddingWriter(
            output,
            list(table["utterance_id"]),
            list(table["speaker_id"]),
            encoder.dim,
            encoder.info.name,
            encoder.info.weights,
            # The recordings' checksums stand in the manifest, the weights' revision in the model.
            fingerprint("", manifest, model, *source_files(__file__, Path(etaflow.__path__[0]))),
        ) as writer,
        bar(
            len(table),
            f"embeddings of shard {manifest.stem} by {encoder.info.name}",
            "utterances",
            initial=len(table) - len(writer.remaining),
        ) as shown,
    ):
        left = set(writer.remaining)
        ids = list(table["utterance_id"])
        files = list(zip(table["path"], table["checksum"], strict=True))
        # Batches are made up as before a kill, so that the result is the same to the bit.
        batches = [
            batch
            for batch in similar_lengths(lengths, int(BATCH_SECONDS * SAMPLE_RATE))
            if not left.isdisjoint(ids[index] for index in batch)
        ]
        waveforms = read_ahead([[files[index] for index in batch] for batch in batches], threads)
        for batch, waves in zip(batches, waveforms, strict=True):
            for index, vector in zip(batch, encoder.embed(waves), strict=True):
                writer.write(ids[index], vector)
            shown.update(sum(ids[index] in left for index in batch))


if __name__ == "__main__":
    app()

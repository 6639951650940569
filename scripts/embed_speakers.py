"""Embed every utterance of a shard with a speaker encoder."""

from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.audio import SAMPLE_RATE, read_audio, resampled_length
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
        rows = list(table.itertuples())
        # Batches are made up as before a kill, so that the result is the same to the bit.
        for batch in similar_lengths(lengths, int(BATCH_SECONDS * SAMPLE_RATE)):
            if left.isdisjoint(rows[index].utterance_id for index in batch):
                continue
            waveforms = [read_audio(rows[index].path) for index in batch]
            vectors = encoder.embed(waveforms)
            for index, vector in zip(batch, vectors, strict=True):
                writer.write(rows[index].utterance_id, vector)
            shown.update(sum(rows[index].utterance_id in left for index in batch))


if __name__ == "__main__":
    app()

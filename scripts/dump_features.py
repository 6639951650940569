"""Dump SSL features of one shard to HDF5."""

import json
from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.audio import SAMPLE_RATE, read_audio, resampled_length
from etaflow.device import select_device
from etaflow.manifest import read_manifest
from etaflow.progress import bar
from etaflow.provenance import fingerprint, source_files
from etaflow.ssl import SSLEncoder
from etaflow.store import FeatureMeta, FeatureWriter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: normalize, dtype, batch_seconds")],
    layer: Annotated[int, typer.Option(help="transformer block whose output is kept")],
    manifest: Annotated[Path, typer.Option(help="manifest of the shard")],
    model: Annotated[Path, typer.Option(help="model.json of the encoder")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Encode every utterance of a shard in batches of similar length."""
    settings = json.loads(config)
    table = read_manifest(manifest)
    encoder = SSLEncoder.from_pretrained(
        model.parent, layer, settings["normalize"], select_device(gpus)
    )
    table["length"] = [
        resampled_length(count, rate)
        for count, rate in zip(table["num_samples"], table["sample_rate"], strict=True)
    ]
    meta = FeatureMeta(
        encoder.info.name,
        encoder.info.revision,
        layer,
        settings["normalize"],
        SAMPLE_RATE,
        encoder.hop_length,
    )
    budget = int(settings["batch_seconds"] * SAMPLE_RATE)
    table = table.sort_values(["length", "utterance_id"], ascending=[False, True])
    with (
        FeatureWriter(
            output,
            meta,
            list(table["utterance_id"]),
            list(table["speaker_id"]),
            list(table["length"]),
            [encoder.num_frames(length) for length in table["length"]],
            encoder.dim,
            settings["dtype"],
            # The recordings' checksums stand in the manifest.
            fingerprint(config, manifest, *source_files(__file__, Path(etaflow.__path__[0]))),
        ) as writer,
        bar(
            len(table),
            f"features of shard {manifest.stem}",
            "utterances",
            initial=len(table) - len(writer.remaining),
        ) as shown,
    ):
        left = set(writer.remaining)
        rows = list(table.itertuples())
        while rows:
            size = max(1, budget // int(rows[0].length))
            batch, rows = rows[:size], rows[size:]
            # Batches are made up as before a kill, so that the result is the same to the bit.
            if left.isdisjoint(row.utterance_id for row in batch):
                continue
            features = encoder.encode(
                [read_audio(row.path) for row in batch],
                max_batch_seconds=settings["batch_seconds"],
            )
            for row, frames in zip(batch, features, strict=True):
                writer.write(row.utterance_id, frames.numpy())
            shown.update(sum(row.utterance_id in left for row in batch))


if __name__ == "__main__":
    app()

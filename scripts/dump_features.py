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
        # Batches are made up as before a kill, so that the result is the same to the bit.
        for batch in encoder.batches(list(table["length"]), settings["batch_seconds"]):
            if left.isdisjoint(rows[index].utterance_id for index in batch):
                continue
            waveforms = [read_audio(rows[index].path) for index in batch]
            features = encoder.encode(waveforms, max_batch_seconds=settings["batch_seconds"])
            for index, frames in zip(batch, features, strict=True):
                writer.write(rows[index].utterance_id, frames.numpy())
            shown.update(sum(rows[index].utterance_id in left for index in batch))


if __name__ == "__main__":
    app()

"""Dump SSL features of one shard to HDF5."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

import etaflow
from etaflow.atomic import part_path
from etaflow.audio import SAMPLE_RATE, read_ahead, resampled_length
from etaflow.batches import similar_lengths
from etaflow.device import select_device
from etaflow.manifest import read_manifest
from etaflow.models import ModelError
from etaflow.progress import bar
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.ssl import SSLEncoder
from etaflow.ssl.frames import FIELD
from etaflow.store import FeatureMeta, FeatureWriter, require_room

app = new_app()


def lengths_of(table: pd.DataFrame) -> list[int]:
    """Samples of each utterance at 16 kHz."""
    return [
        resampled_length(count, rate)
        for count, rate in zip(table["num_samples"], table["sample_rate"], strict=True)
    ]


def bytes_to_come(manifest: Path, outputs: Sequence[Path], encoder: SSLEncoder, dtype: str) -> int:
    """What the shards of this corpus will take that were not begun yet."""
    total = 0
    for shard in sorted(manifest.parent.glob("*.tsv")):
        files = [output.with_name(f"{shard.stem}.h5") for output in outputs]
        files = [file for file in files if not (file.exists() or part_path(file).exists())]
        if files:
            lengths = lengths_of(read_manifest(shard))
            frames = sum(map(encoder.num_frames, lengths)) * np.dtype(dtype).itemsize
            sums = 2 * np.dtype(np.float64).itemsize * len(lengths)
            total += len(files) * encoder.dim * (frames + sums)
    return total


def dump(
    encoder: SSLEncoder,
    table: pd.DataFrame,
    lengths: Sequence[int],
    writers: Mapping[int, FeatureWriter],
    batch_seconds: float,
    threads: int,
    description: str,
) -> None:
    """Encode what is left; one batch is read and one written while the one between is encoded."""
    ids = list(table["utterance_id"])
    files = list(zip(table["path"], table["checksum"], strict=True))
    left = {name for writer in writers.values() for name in writer.remaining}
    # Batches are made up as before a kill, so that the result is the same to the bit.
    batches = [
        batch
        for batch in similar_lengths(lengths, int(batch_seconds * SAMPLE_RATE))
        if not left.isdisjoint(ids[index] for index in batch)
    ]

    def write(batch: Sequence[int], features: Sequence[dict[int, torch.Tensor]]) -> None:
        for index, of_layer in zip(batch, features, strict=True):
            for layer, writer in writers.items():
                writer.write(ids[index], of_layer[layer].numpy())
        shown.update(sum(ids[index] in left for index in batch))

    with (
        bar(len(ids), description, "utterances", initial=len(ids) - len(left)) as shown,
        ThreadPoolExecutor(1) as pool,
    ):
        writing: Future[None] | None = None
        waveforms = read_ahead([[files[index] for index in batch] for batch in batches], threads)
        for batch, waves in zip(batches, waveforms, strict=True):
            features = encoder.encode_layers(waves, max_batch_seconds=batch_seconds)
            if writing:
                writing.result()
            writing = pool.submit(write, batch, features)
        if writing:
            writing.result()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: normalize, dtype, batch_seconds, precision")],
    layer: Annotated[list[int], typer.Option(help="block whose output is kept; may be repeated")],
    manifest: Annotated[Path, typer.Option(help="of the shard, in the folder of the corpus's")],
    model: Annotated[Path, typer.Option(help="model.json of the encoder")],
    output: Annotated[list[Path], typer.Option(help="HDF5 file to write, one a layer")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
    threads: Annotated[int, typer.Option(help="that read recordings")] = 2,
) -> None:
    """Encode every utterance of a shard in batches of similar length."""
    if len({*layer}) < len(layer) or len({*output}) != len(layer):
        raise typer.BadParameter(
            "each layer once, each with an output of its own", param_hint="--layer"
        )
    settings = json.loads(config)
    table = read_manifest(manifest)
    lengths = lengths_of(table)
    encoder = SSLEncoder.from_pretrained(
        model.parent, layer, settings["normalize"], select_device(gpus), settings["precision"]
    )
    if encoder.grid.field != FIELD:
        raise ModelError(
            f"{encoder.info.name}: a frame sees {encoder.grid.field} samples; what reads stored "
            f"features expects {FIELD}"
        )
    require_room(
        output[0].parent,
        bytes_to_come(manifest, output, encoder, settings["dtype"]),
        f"the features of {manifest.parent.name} that are still to be made",
    )
    # The recordings' checksums stand in the manifest.
    key = fingerprint(config, manifest, *source_files(__file__, Path(etaflow.__path__[0])))
    with ExitStack() as stack:
        writers = {}
        for number, path in zip(layer, output, strict=True):
            meta = FeatureMeta(
                encoder.info.name,
                encoder.info.revision,
                number,
                settings["normalize"],
                SAMPLE_RATE,
                encoder.hop_length,
            )
            writer = FeatureWriter(
                path,
                meta,
                list(table["utterance_id"]),
                list(table["speaker_id"]),
                lengths,
                [encoder.num_frames(length) for length in lengths],
                encoder.dim,
                settings["dtype"],
                key,
            )
            writers[number] = stack.enter_context(writer)
        description = f"features of shard {manifest.stem}"
        dump(encoder, table, lengths, writers, settings["batch_seconds"], threads, description)


if __name__ == "__main__":
    app()

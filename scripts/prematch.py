"""Prematch the training utterances of one shard."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.device import select_device
from etaflow.knn import prematch
from etaflow.manifest import read_manifest
from etaflow.progress import bar
from etaflow.store import FeatureStore, FeatureWriter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: topk, dtype")],
    manifest: Annotated[Path, typer.Option(help="manifest of the shard")],
    features: Annotated[Path, typer.Option(help="HDF5 features of the shard")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Rebuild each training utterance from its speaker's other training utterances."""
    settings = json.loads(config)
    table = read_manifest(manifest)
    store = FeatureStore([features])
    device = select_device(gpus)
    train = table[table["split"] == "train"].sort_values("utterance_id")
    speakers = {name: list(rows["utterance_id"]) for name, rows in train.groupby("speaker_id")}
    alone = [name for name, ids in speakers.items() if len(ids) < 2]
    if alone:
        typer.echo(
            f"{len(alone)} speaker(s) with one training utterance left out: {', '.join(alone)}",
            err=True,
        )
    speakers = {name: ids for name, ids in speakers.items() if len(ids) >= 2}
    ids = [utterance for each in speakers.values() for utterance in each]
    where = {name: u for u, name in enumerate(store.utterance_ids)}
    rows = [where[name] for name in ids]
    with (
        FeatureWriter(
            output,
            store.meta,
            ids,
            [store.speaker_ids[row] for row in rows],
            store.num_samples[rows],
            store.num_frames[rows],
            store.dim,
            settings["dtype"],
        ) as writer,
        bar(len(ids), f"prematching shard {manifest.stem}", "utterances") as shown,
    ):
        for utterances in speakers.values():
            rebuilt = prematch([store[name] for name in utterances], settings["topk"], device)
            for name, frames in zip(utterances, rebuilt, strict=True):
                writer.write(name, frames)
            shown.update(len(utterances))


if __name__ == "__main__":
    app()

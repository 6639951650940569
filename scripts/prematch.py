"""Prematch the training utterances of one shard."""

import json
from pathlib import Path
from typing import Annotated

import typer

import etaflow
from etaflow.device import select_device
from etaflow.knn import can_prematch, prematch
from etaflow.manifest import read_manifest
from etaflow.progress import bar
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.store import FeatureStore, FeatureWriter

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: topk, dtype")],
    manifest: Annotated[Path, typer.Option(help="manifest of the shard")],
    features: Annotated[Path, typer.Option(help="HDF5 features of the shard")],
    output: Annotated[Path, typer.Option(help="HDF5 file to write")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Rebuild each training utterance from its speaker's other training utterances.

    Speakers with too few of them are left out and named; the file may be empty of utterances.
    A speaker at a time is in memory. A killed run goes on with the speaker it was at.
    """
    settings = json.loads(config)
    topk = settings["topk"]
    table = read_manifest(manifest)
    store = FeatureStore([features])
    device = select_device(gpus)
    row = {name: u for u, name in enumerate(store.utterance_ids)}
    train = table[table["split"] == "train"].sort_values("utterance_id")
    speakers = {name: list(rows["utterance_id"]) for name, rows in train.groupby("speaker_id")}
    short = [
        name
        for name, ids in speakers.items()
        if not can_prematch(store.num_frames[[row[u] for u in ids]], topk)
    ]
    if short:
        typer.echo(
            f"{len(short)} of {len(speakers)} speaker(s) left out, whose utterances have fewer "
            f"than {topk} frames in the speaker's other training utterances: {', '.join(short)}",
            err=True,
        )
    speakers = {name: ids for name, ids in speakers.items() if name not in short}
    ids = [utterance for each in speakers.values() for utterance in each]
    rows = [row[name] for name in ids]
    key = fingerprint(
        config, manifest, features, *source_files(__file__, Path(etaflow.__path__[0]))
    )
    with FeatureWriter(
        output,
        store.meta,
        ids,
        [store.speaker_ids[u] for u in rows],
        store.num_samples[rows],
        store.num_frames[rows],
        store.dim,
        settings["dtype"],
        key,
    ) as writer:
        left = set(writer.remaining)
        description = f"prematching shard {manifest.stem}"
        with bar(len(ids), description, "utterances", initial=len(ids) - len(left)) as shown:
            for utterances in speakers.values():
                if left.isdisjoint(utterances):
                    continue
                rebuilt = prematch([store[name] for name in utterances], topk, device)
                for name, frames in zip(utterances, rebuilt, strict=True):
                    writer.write(name, frames)
                    shown.update(name in left)


if __name__ == "__main__":
    app()

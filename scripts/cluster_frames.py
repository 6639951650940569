"""Cluster the frames of corpora: what a pretraining predicts."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from etaflow.audio import Waveform, read_ahead
from etaflow.batches import similar_lengths
from etaflow.device import select_device
from etaflow.manifest import first_names, joint_table
from etaflow.progress import progress
from etaflow.script import new_app
from etaflow.ssl import SSLEncoder
from etaflow.ssl.pretraining.codes import Codes, fit_clusters, mfcc, nearest_codes, standardised

app = new_app()
BATCH_SAMPLES = 60 * 16_000


def encoded(
    table: pd.DataFrame, encoder: SSLEncoder | None, what: str
) -> Iterator[tuple[str, np.ndarray]]:
    """The standardised frames (T, D) of each utterance, MFCCs or those of an encoder's layer."""
    files = list(zip(table["path"], table["checksum"], strict=True))
    lengths = (table["num_samples"] * 16_000 // table["sample_rate"]).tolist()
    batches = list(similar_lengths(lengths, BATCH_SAMPLES))
    waveforms = read_ahead([files[index] for index in batch] for batch in batches)
    names = table["utterance_id"].tolist()
    for batch, read in zip(
        progress(batches, what, "batch", total=len(batches)), waveforms, strict=True
    ):
        found = features(read, encoder)
        yield from ((names[i], standardised(each)) for i, each in zip(batch, found, strict=True))


def features(waveforms: Sequence[Waveform], encoder: SSLEncoder | None) -> Iterable[np.ndarray]:
    if encoder is None:
        return map(mfcc, waveforms)
    return [each.numpy() for each in encoder.encode(waveforms)]


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {targets: {kind: mfcc, clusters, utterances, seed}} or {targets: {kind: "
            "layer, layer, clusters, utterances, seed}}"
        ),
    ],
    manifests: Annotated[
        list[Path],
        typer.Option("--manifest", help="of a corpus, CORPUS.….tsv; repeat for further corpora"),
    ],
    output: Annotated[Path, typer.Option(help="safetensors: the codes of all utterances")],
    model: Annotated[
        Path | None, typer.Option(help="model.json of the encoder whose layer is clustered")
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Cluster MFCCs, or a layer of an encoder, of the training utterances."""
    settings: dict[str, Any] = json.loads(config)["targets"]
    if (settings["kind"] == "layer") != bool(model):
        raise typer.BadParameter("--model goes with targets of kind layer, and no other")
    table = joint_table(manifests).query("split == 'train'")
    encoder = None
    if model:
        encoder = SSLEncoder.from_pretrained(
            model.parent, settings["layer"], normalize=True, device=select_device(gpus)
        )
    order = np.random.default_rng(settings["seed"]).permutation(len(table))
    drawn = table.iloc[np.sort(order[: settings["utterances"]])]
    frames = [each for _, each in encoded(drawn, encoder, "frames to cluster")]
    centres = fit_clusters(frames, settings["clusters"], settings["seed"])
    found = {name: nearest_codes(each, centres) for name, each in encoded(table, encoder, "codes")}
    names = table["utterance_id"].tolist()
    codes = Codes.of(len(centres), ((name, found[name]) for name in names), settings)
    codes.write(output)
    typer.echo(
        f"{len(codes.codes)} frames of {len(names)} utterances ({first_names(names, 2)}) in "
        f"{len(centres)} clusters of {sum(map(len, frames))} frames",
        err=True,
    )


if __name__ == "__main__":
    app()

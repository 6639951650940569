"""Probe how well speakers, phones and words are read from features with and without the speaker."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from etaflow.eta import EtaModel, draw_frames
from etaflow.manifest import read_manifest, read_table, training_utterances, write_table
from etaflow.models import worst_weights
from etaflow.probe import (
    COLUMNS,
    ProbeError,
    draw_balanced,
    linear_probe,
    segment_frames,
)
from etaflow.script import new_app
from etaflow.store import Embeddings, FeatureStore, Floats

app = new_app()
ALIGNER = "published"  # the weights of PocketSphinx's wheel
# An item is the mean of the frames `first` to `last` - 1 of an utterance.
ITEM = ["utterance_id", "first", "last", "label"]


def complain(text: str) -> None:
    typer.echo(text, err=True)


def balanced(items: pd.DataFrame, name: str, config: dict[str, Any]) -> pd.DataFrame:
    """The items drawn for a probe; the classes left out are named."""
    labels, utterances = items["label"].tolist(), items["utterance_id"].tolist()
    chosen, rare = draw_balanced(
        labels, utterances, config["folds"], config["utterances"], config["seed"]
    )
    if rare:
        few = f"in fewer than {config['folds']} utterances (`folds`)"
        complain(f"{name}: {len(rare)} class(es) {few} left out: {', '.join(rare)}")
    return items.iloc[chosen]


def speaker_items(
    test: pd.DataFrame, num_frames: dict[str, int], config: dict[str, Any]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Whole utterances, and frames of the same utterances, of speakers spread evenly."""
    ids = test["utterance_id"]
    whole = pd.DataFrame(
        {"utterance_id": ids, "first": 0, "last": ids.map(num_frames), "label": test["speaker_id"]}
    )
    counts = whole["label"].value_counts()
    speakers = np.sort(counts.index[counts >= config["folds"]])
    places = np.linspace(0, len(speakers) - 1, min(len(speakers), config["speakers"]))
    others = set(speakers) - set(speakers[places.round().astype(int)])
    utterances = balanced(whole[~whole["label"].isin(others)], "speaker", config)
    yield "speaker", "utterance", utterances
    frames = [
        (row.utterance_id, frame, frame + 1, row.label)
        for row in utterances.itertuples()
        for frame in draw_frames(row.utterance_id, row.last, config["frames"], config["seed"])
    ]
    yield "speaker", "frame", pd.DataFrame(frames, columns=ITEM)


def content_items(
    alignments: pd.DataFrame,
    units: list[str],
    num_frames: dict[str, int],
    store: FeatureStore,
    config: dict[str, Any],
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The aligned segments of each kind of unit."""
    for unit in units:
        segments = alignments
        if unit == "word":  # the phones of a word stand one after another
            same = segments[["utterance_id", "word"]]
            runs = (same != same.shift()).any(axis=1).cumsum()
            names = {"utterance_id": "first", "start": "min", "stop": "max", "word": "first"}
            segments = segments.groupby(runs).agg(names)
        items: list[tuple[str, int, int, str]] = []
        for name, rows in segments.groupby("utterance_id"):
            first, last = segment_frames(
                rows["start"].to_numpy(),
                rows["stop"].to_numpy(),
                num_frames[name],
                store.meta.sample_rate,
                store.meta.hop_length,
            )
            found = zip(first, last, rows[unit], strict=True)
            items += [(name, *item) for item in found if item[0] < item[1]]
        yield "content", unit, balanced(pd.DataFrame(items, columns=ITEM), unit, config)


def item_features(
    items: pd.DataFrame, store: FeatureStore, model: EtaModel, speakers: Embeddings
) -> dict[str, Floats]:
    """Means (N, D) of the raw and of the eta features of each item."""
    raw = np.empty((len(items), store.dim), np.float32)
    eta = np.empty_like(raw)
    for name, rows in items.reset_index(drop=True).groupby("utterance_id"):
        frames = store.read(name)
        removed = model.remove_speaker(frames, speakers.rows([name])[0])
        for row in rows.itertuples():
            raw[row.Index] = frames[row.first : row.last].mean(axis=0)
            eta[row.Index] = removed[row.first : row.last].mean(axis=0)
    return {"raw": raw, "eta": eta}


@app.command()
def main(
    features: Annotated[list[Path], typer.Argument(help="HDF5 shards of the probed features")],
    config: Annotated[str, typer.Option(help="JSON: speakers, utterances, frames, folds, seed")],
    manifest: Annotated[Path, typer.Option(help="manifest of the probed corpus")],
    fit_manifest: Annotated[Path, typer.Option(help="manifest of the corpus of the Eta fit")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of the probed speaker embeddings")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    output: Annotated[Path, typer.Option(help="TSV to write")],
    alignments: Annotated[
        Path | None, typer.Option(help="TSV of aligned phones; without it speakers only")
    ] = None,
    words: Annotated[bool, typer.Option(help="probe words as well as phones")] = False,
) -> None:
    """Probe the test utterances of a corpus; a probe that they do not allow has no row."""
    settings = json.loads(config)
    model = EtaModel.from_pretrained(eta)
    store = FeatureStore(features)
    facts = asdict(store.meta)
    model.check_features({key: facts[key] for key in ("model", "revision", "layer", "normalize")})
    vectors = Embeddings.read(embeddings)
    model.check_features({"encoder": vectors.encoder})
    table = read_manifest(manifest)
    test = table[table["split"] == "test"]
    speaker_of = dict(zip(test["utterance_id"], test["speaker_id"], strict=True))
    num_frames = dict(zip(store.utterance_ids, store.num_frames.tolist(), strict=True))
    fit = read_manifest(fit_manifest)
    drawn = training_utterances(fit, model.config["utterances"], model.config["seed"])
    # A model of all training utterances has drawn them all.
    fitted = set(fit.loc[fit["utterance_id"].isin(drawn), "speaker_id"])

    probes = list(speaker_items(test, num_frames, settings))
    if alignments:
        aligned = read_table(alignments, numbers=("start", "stop"))
        units = ["phone", "word"] if words else ["phone"]
        probes += content_items(aligned, units, num_frames, store, settings)
    rows: list[list[Any]] = []
    for probe, unit, items in probes:
        seen = len(fitted & {speaker_of[name] for name in items["utterance_id"]})
        if seen:
            complain(
                f"warning: {probe} probe, {unit}: {seen} of its speakers were in the fit of Eta, "
                "which flatters it; split the corpus by speaker, or probe another one"
            )
        labels, names = items["label"].tolist(), items["utterance_id"].tolist()
        path = [model.config["weights"], *([ALIGNER] if probe == "content" else [])]
        for kind, values in item_features(items, store, model, vectors).items():
            try:
                found = linear_probe(values, labels, names, settings["folds"], settings["seed"])
            except ProbeError as error:
                complain(f"no {probe} probe, {unit}: {error}")
                break
            rates = (found.accuracy, found.low, found.high, found.chance, found.majority)
            counts = (found.items, found.utterances, found.classes, seen)
            rows.append(
                [probe, kind, unit, *(100 * rate for rate in rates), *counts, worst_weights(path)]
            )
            complain(
                f"{probe} probe, {unit}, {kind}: {found.accuracy:.1%} "
                f"({found.low:.1%} to {found.high:.1%}), chance {found.chance:.1%}"
            )
    write_table(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    app()

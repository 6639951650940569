"""Fit Eta-WavLM on the training utterances of a corpus."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from etaflow import eta
from etaflow.manifest import read_manifest, training_utterances
from etaflow.models import read_model_info, worst_weights
from etaflow.script import new_app
from etaflow.store import Embeddings, FeatureStore, StoreError

app = new_app()


@app.command()
def main(
    features: Annotated[list[Path], typer.Argument(help="HDF5 shards of features")],
    config: Annotated[str, typer.Option(help="JSON: corpus, ridge, utterances, frames, seed")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    model: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of speaker embeddings")],
    output_dir: Annotated[Path, typer.Option(help="folder for eta.safetensors and config.json")],
    pca: Annotated[Path | None, typer.Option(help="PCA of the embeddings")] = None,
) -> None:
    """Solve the least squares over all training frames from each utterance's sums."""
    settings = json.loads(config)
    table = read_manifest(manifest)
    info, _ = read_model_info(model.parent)
    store = FeatureStore(features, {"model": info.name, "revision": info.revision})
    speakers = Embeddings.read(embeddings)
    train = set(training_utterances(table, settings["utterances"], settings["seed"]))
    missing = sorted({*table["utterance_id"]} - {*store.utterance_ids})
    if missing:
        raise StoreError(f"{len(missing)} utterance(s) without features, the first is {missing[0]}")
    rows = np.asarray([name in train for name in store.utterance_ids])
    names = [name for name in store.utterance_ids if name in train]
    vectors = speakers.rows(names)
    components = eta.Pca.load(pca) if pca else None
    reduced = components.transform(vectors) if components else vectors.astype(np.float64)
    sums, counts = store.frame_sum[rows], store.num_frames[rows]
    squares, ridge = store.frame_square_sum[rows], settings["ridge"]
    num_speakers = table.loc[table["utterance_id"].isin(train), "speaker_id"].nunique()
    if num_speakers <= reduced.shape[1]:
        typer.echo(
            f"warning: {num_speakers} speakers for {reduced.shape[1]} components: what is fitted "
            "is in part the utterances, not the speakers; take more speakers or a smaller `pca`",
            err=True,
        )
    if settings["frames"] is None:
        fitted_sums, fitted_counts = sums, counts
    else:
        drawn = [
            store[name][eta.draw_frames(name, count, settings["frames"], settings["seed"])]
            for name, count in zip(names, counts.tolist(), strict=True)
        ]
        fitted_sums = np.stack([frames.sum(axis=0, dtype=np.float64) for frames in drawn])
        fitted_counts = np.asarray([len(frames) for frames in drawn])
    coefficients, bias = eta.fit(fitted_sums, fitted_counts, reduced, ridge)
    # Of all frames, whatever the fit has seen, so that fits can be compared.
    r2_dims, r2 = eta.explained_variance(coefficients, bias, sums, squares, counts, reduced)
    held_out = set(table.loc[table["split"] == "test", "utterance_id"])
    other = np.asarray([name in held_out for name in store.utterance_ids])
    r2_held_out = None
    if other.any():
        others = speakers.rows([name for name in store.utterance_ids if name in held_out])
        _, r2_held_out = eta.explained_variance(
            coefficients,
            bias,
            store.frame_sum[other],
            store.frame_square_sum[other],
            store.num_frames[other],
            components.transform(others) if components else others,
        )
    fitted = eta.EtaModel(
        coefficients,
        bias,
        fitted_sums.sum(axis=0) / fitted_counts.sum(),
        components,
        {
            "model": info.name,
            "revision": info.revision,
            "layer": store.meta.layer,
            "normalize": store.meta.normalize,
            "encoder": speakers.encoder,
            "weights": worst_weights([info.weights, speakers.weights]),
            "corpus": settings["corpus"],
            "pca": reduced.shape[1] if components else None,
            "pca_explained_variance": (
                float(components.explained_variance_ratio.sum()) if components else None
            ),
            "ridge": ridge,
            "utterances": len(names),
            "speakers": int(num_speakers),
            "frames": int(fitted_counts.sum()),
            "frames_per_utterance": settings["frames"],
            "frames_r2": int(counts.sum()),
            "frames_r2_held_out": int(store.num_frames[other].sum()),
            "seed": settings["seed"],
            "condition_number": eta.condition_number(fitted_counts, reduced, ridge),
            "r2": r2,
            "r2_held_out": r2_held_out,
            "r2_per_dimension": [float(value) for value in r2_dims],
        },
    )
    fitted.save_pretrained(output_dir)
    typer.echo(
        f"{reduced.shape[1]} components explain {r2:.1%} of the variance of "
        f"{int(counts.sum())} frames",
        err=True,
    )


if __name__ == "__main__":
    app()

"""Train a vocoder on the features of a corpus."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

import etaflow
from etaflow.atomic import atomic_directory
from etaflow.eta import EtaFeatures, EtaModel
from etaflow.manifest import first_names, hold_out, read_manifest
from etaflow.models import read_model_info, worst_weights
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.store import Embeddings, FeatureStore
from etaflow.training import kept_step, train, write_history
from etaflow.training.command import Job, say, with_job
from etaflow.vocoder import Generator, read_config
from etaflow.vocoder.discriminator import DiscriminatorConfig
from etaflow.vocoder.pretrained import read_start
from etaflow.vocoder.segments import full_band
from etaflow.vocoder.task import VocoderTask
from etaflow.waveforms import Waveforms

app = new_app()


@app.command()
@with_job
def main(
    features: Annotated[
        list[Path], typer.Argument(help="HDF5 shards that the generator reads, raw or prematched")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {features, eta, generator or start, discriminator, segment_frames, "
            "batch_size, steps, learning_rate, lr_decay, adversarial_from, mel_windows (optional), "
            "precision, ema, "
            "clip_norm, validate_every, validation_utterances, seed}"
        ),
    ],
    manifests: Annotated[
        list[Path], typer.Option("--manifest", help="of the corpus; repeat for further corpora")
    ],
    output_dir: Annotated[
        Path, typer.Option(help="gets generator.safetensors, config.json, metrics.tsv")
    ],
    model: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    job: Job,
    eta: Annotated[
        Path | None, typer.Option(help="folder of the Eta model, for features: eta")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="HDF5 of the corpus's speaker embeddings, for --eta")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="HDF5 shards of raw features, for features: raw+prematched; repeat"),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="model.json of the vocoder to train on, in place of a new")
    ] = None,
) -> None:
    """Train a vocoder; the generator of the lowest mel distance is kept."""
    settings = json.loads(config)
    if (settings["features"] == "eta") != bool(eta and embeddings):
        raise typer.BadParameter("features: eta goes with --eta and --embeddings, and no other")
    if (settings["features"] == "raw+prematched") != bool(also):
        raise typer.BadParameter("features: raw+prematched goes with --also, and no other")
    if ("start" in settings) != bool(start) or ("generator" in settings) == bool(start):
        raise typer.BadParameter("start goes with --start and without generator, and no other")
    info, _ = read_model_info(model.parent)
    table = pd.concat([read_manifest(each) for each in manifests]).query("split == 'train'")
    store, origin, models, weights = FeatureStore(features), {}, [], info.weights
    raw = FeatureStore(also) if also else None
    if raw and raw.meta != store.meta:
        raise typer.BadParameter(f"--also: features of {raw.meta}, the others are of {store.meta}")
    if eta and embeddings:
        fit = EtaModel.from_pretrained(eta)
        store = EtaFeatures(features, fit, Embeddings.read(embeddings))
        origin = {"eta": settings["eta"], "eta_digest": fit.digest}
        models = [eta / "eta.safetensors", embeddings]
        weights = worst_weights([weights, fit.config["weights"]])
    torch.manual_seed(settings["seed"])
    label = "untrained"
    if start:
        facts = {"layer": store.meta.layer, "normalize": store.meta.normalize}
        generator, label = read_start(start.parent, store.dim, facts)
        origin |= {"start": settings["start"]}
        models += [start, *sorted(read_model_info(start.parent)[1].iterdir())]
    else:
        generator = Generator(read_config({"feature_dim": store.dim, **settings["generator"]}))
    known = {*store.utterance_ids, *(raw.utterance_ids if raw else ())}
    table = table[table["utterance_id"].isin(known)].set_index("utterance_id")
    rate = generator.sample_rate
    usable, narrow = full_band(table["sample_rate"].to_dict(), rate)
    if narrow:
        say(
            f"left out: {len(narrow)} of {len(table)} utterances, recorded at less than the "
            f"generator's {rate} Hz ({first_names(narrow)})"
        )
    names = sorted({*usable} & {*store.utterance_ids})
    _, validation_ids = hold_out(names, settings["validation_utterances"], settings["seed"])
    train_ids = sorted({*usable} - {*validation_ids})
    files = dict(zip(table.index, zip(table["path"], table["checksum"], strict=True), strict=True))
    task = VocoderTask(
        generator,
        DiscriminatorConfig(**settings["discriminator"]),
        store,
        Waveforms(files, rate),
        train_ids,
        validation_ids,
        segment_frames=settings["segment_frames"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        lr_decay=settings["lr_decay"],
        adversarial_from=settings["adversarial_from"],
        also=raw,
        mel_windows=settings.get("mel_windows"),
    )
    if padded := task.dataset.num_padded:
        say(
            f"{padded} of {len(task.dataset)} training utterances are shorter than a segment of "
            f"{settings['segment_frames']} frames and are padded"
        )
    package = Path(etaflow.__path__[0])
    code = source_files(__file__, package)
    given = [*manifests, model, *features, *(also or [])]
    key = fingerprint(config, *given, *models, *code)
    history = train(
        task,
        job.settings(settings, select="mel_distance"),
        fingerprint=key,
        **job.resources(),
    )
    if history is None:
        return
    kept = kept_step(history, "mel_distance")
    typer.echo(f"kept the weights of step {kept} of {settings['steps']}", err=True)
    with atomic_directory(output_dir) as part:
        generator.save_pretrained(
            part,
            model=store.meta.model,
            revision=store.meta.revision,
            layer=store.meta.layer,
            normalize=store.meta.normalize,
            weights=worst_weights([weights, "trained" if kept else label]),
            step=kept,
            features=settings["features"],
            **origin,
        )
        write_history(history, part / "metrics.tsv")
    shutil.rmtree(job.working_dir)


if __name__ == "__main__":
    app()

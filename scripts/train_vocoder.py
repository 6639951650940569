"""Train a HiFi-GAN vocoder on the features of a corpus."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

import etaflow
from etaflow.atomic import atomic_directory
from etaflow.eta import EtaFeatures, EtaModel
from etaflow.manifest import first_names, hold_out, read_manifest
from etaflow.models import read_model_info, worst_weights
from etaflow.provenance import fingerprint, source_files
from etaflow.store import Embeddings, FeatureStore
from etaflow.training import kept_step, train, write_history
from etaflow.training.command import Job, say, with_job
from etaflow.vocoder import Generator, GeneratorConfig
from etaflow.vocoder.discriminator import DiscriminatorConfig
from etaflow.vocoder.segments import full_band
from etaflow.vocoder.task import VocoderTask
from etaflow.waveforms import Waveforms

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@with_job
def main(
    features: Annotated[
        list[Path], typer.Argument(help="HDF5 shards that the generator reads, raw or prematched")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {features, eta, generator, discriminator, segment_frames, batch_size, "
            "steps, learning_rate, lr_decay, adversarial_from, precision, ema, clip_norm, "
            "validate_every, validation_utterances, seed}"
        ),
    ],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus (TSV)")],
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
) -> None:
    """Train a HiFi-GAN vocoder; the generator of the lowest mel distance is kept."""
    settings = json.loads(config)
    if (settings["features"] == "eta") != bool(eta and embeddings):
        raise typer.BadParameter("features: eta goes with --eta and --embeddings, and no other")
    info, _ = read_model_info(model.parent)
    table = read_manifest(manifest).query("split == 'train'")
    store, origin, models, weights = FeatureStore(features), {}, [], info.weights
    if eta and embeddings:
        fit = EtaModel.from_pretrained(eta)
        store = EtaFeatures(features, fit, Embeddings.read(embeddings))
        origin = {"eta": settings["eta"], "eta_digest": fit.digest}
        models = [eta / "eta.safetensors", embeddings]
        weights = worst_weights([weights, fit.config["weights"]])
    sizes = GeneratorConfig.from_dict({"feature_dim": store.dim, **settings["generator"]})
    table = table[table["utterance_id"].isin(store.utterance_ids)].set_index("utterance_id")
    usable, narrow = full_band(table["sample_rate"].to_dict(), sizes.sample_rate)
    if narrow:
        say(
            f"left out: {len(narrow)} of {len(table)} utterances, recorded at less than the "
            f"generator's {sizes.sample_rate} Hz ({first_names(narrow)})"
        )
    train_ids, validation_ids = hold_out(
        sorted(usable), settings["validation_utterances"], settings["seed"]
    )
    files = dict(zip(table.index, zip(table["path"], table["checksum"], strict=True), strict=True))
    torch.manual_seed(settings["seed"])
    generator = Generator(sizes)
    task = VocoderTask(
        generator,
        DiscriminatorConfig(**settings["discriminator"]),
        store,
        Waveforms(files, sizes.sample_rate),
        train_ids,
        validation_ids,
        segment_frames=settings["segment_frames"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        lr_decay=settings["lr_decay"],
        adversarial_from=settings["adversarial_from"],
    )
    if padded := task.dataset.num_padded:
        say(
            f"{padded} of {len(task.dataset)} training utterances are shorter than a segment of "
            f"{settings['segment_frames']} frames and are padded"
        )
    package = Path(etaflow.__path__[0])
    code = source_files(__file__, package)
    key = fingerprint(config, manifest, model, *features, *models, *code)
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
            weights=weights,
            step=kept,
            features=settings["features"],
            **origin,
        )
        write_history(history, part / "metrics.tsv")
    shutil.rmtree(job.working_dir)


if __name__ == "__main__":
    app()

"""Train a HiFi-GAN vocoder on the features of a corpus."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

import etaflow
from etaflow.atomic import atomic_directory
from etaflow.manifest import read_manifest
from etaflow.models import read_model_info
from etaflow.provenance import fingerprint, source_files
from etaflow.store import FeatureStore
from etaflow.training import train, write_history
from etaflow.vocoder import Generator, GeneratorConfig
from etaflow.vocoder.discriminator import DiscriminatorConfig
from etaflow.vocoder.segments import Waveforms, full_band, hold_out
from etaflow.vocoder.task import VocoderTask

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    features: Annotated[
        list[Path], typer.Argument(help="HDF5 shards that the generator reads, raw or prematched")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {generator, discriminator, segment_frames, batch_size, steps, "
            "learning_rate, lr_decay, adversarial_from, validate_every, validation_utterances, "
            "seed}"
        ),
    ],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus (TSV)")],
    output_dir: Annotated[
        Path, typer.Option(help="gets generator.safetensors, config.json, metrics.tsv")
    ],
    working_dir: Annotated[Path, typer.Option(help="for checkpoints; emptied on success")],
    model: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
    threads: Annotated[int, typer.Option(help="CPU cores given to this job")] = 1,
) -> None:
    """Train a HiFi-GAN vocoder; the generator of the lowest mel distance is kept."""
    settings = json.loads(config)
    info, _ = read_model_info(model.parent)
    table = read_manifest(manifest).query("split == 'train'")
    store = FeatureStore(features)
    sizes = GeneratorConfig.from_dict({"feature_dim": store.dim, **settings["generator"]})
    table = table[table["utterance_id"].isin(store.utterance_ids)].set_index("utterance_id")
    usable, narrow = full_band(table["sample_rate"].to_dict(), sizes.sample_rate)
    if narrow:
        named = ", ".join(narrow[:5]) + (", …" if len(narrow) > 5 else "")
        typer.echo(
            f"left out: {len(narrow)} of {len(table)} utterances, recorded at less than the "
            f"generator's {sizes.sample_rate} Hz ({named})",
            err=True,
        )
    train_ids, validation_ids = hold_out(
        sorted(usable), settings["validation_utterances"], settings["seed"]
    )
    torch.manual_seed(settings["seed"])
    generator = Generator(sizes)
    task = VocoderTask(
        generator,
        DiscriminatorConfig(**settings["discriminator"]),
        store,
        Waveforms(table["path"].to_dict(), sizes.sample_rate),
        train_ids,
        validation_ids,
        segment_frames=settings["segment_frames"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        lr_decay=settings["lr_decay"],
        adversarial_from=settings["adversarial_from"],
    )
    package = Path(etaflow.__path__[0])
    code = source_files(__file__, package)
    key = fingerprint(config, manifest, model, *features, *code)
    history = train(
        task,
        steps=settings["steps"],
        seed=settings["seed"],
        working_dir=working_dir,
        fingerprint=key,
        validate_every=settings["validate_every"],
        checkpoint_every=settings["validate_every"],
        select="mel_distance",
        gpus=gpus,
        # On a GPU the other cores prepare batches; on the CPU all of them compute.
        workers=threads - 1 if gpus else 0,
    )
    kept, _ = min(
        ((step, value) for step, name, value in history if name == "valid/mel_distance"),
        key=lambda row: row[1],
    )
    typer.echo(f"kept the weights of step {kept} of {settings['steps']}", err=True)
    with atomic_directory(output_dir) as part:
        generator.save_pretrained(
            part,
            model=store.meta.model,
            revision=store.meta.revision,
            layer=store.meta.layer,
            normalize=store.meta.normalize,
            weights=info.weights,
            step=kept,
        )
        write_history(history, part / "metrics.tsv")
    shutil.rmtree(working_dir)


if __name__ == "__main__":
    app()

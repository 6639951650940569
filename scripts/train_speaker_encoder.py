"""Train a speaker encoder on the speakers of a corpus."""

import json
import math
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import etaflow
from etaflow.atomic import atomic_directory
from etaflow.audio import SAMPLE_RATE
from etaflow.manifest import hold_out, joint_table
from etaflow.models import read_model_info
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.speaker.augment import Augmentation
from etaflow.speaker.losses import make_criterion
from etaflow.speaker.networks import create_network, load_network, save_network
from etaflow.speaker.task import SpeakerTask, Validation
from etaflow.speaker.utterances import SpeakerUtterances
from etaflow.store import Embeddings
from etaflow.training import kept_step, train, write_history
from etaflow.training.command import Job, label_of, say, schedule_of, with_job
from etaflow.trials import generate_trials
from etaflow.waveforms import Waveforms

app = new_app()


def steps_of(settings: dict[str, Any], num_utterances: int) -> int:
    """Steps, or the steps of so many passes over the training utterances."""
    steps, epochs = settings.get("steps"), settings.get("epochs")
    if (steps is None) == (epochs is None):
        raise typer.BadParameter("--config: give either steps or epochs")
    if epochs is None:
        return int(steps)
    return math.ceil(epochs * num_utterances / (settings["speakers"] * settings["utterances"]))


@app.command()
@with_job
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {network, loss, speakers, utterances, crop_seconds, augmentation, steps or "
            "epochs, trained_layers, learning_rate, weight_decay, schedule, precision, ema, "
            "clip_norm, validate_every, patience, keep, validation, seed}"
        ),
    ],
    manifests: Annotated[
        list[Path],
        typer.Option("--manifest", help="of a corpus, CORPUS.….tsv; repeat for further corpora"),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            help="gets encoder.safetensors, config.json, model.json, metrics.tsv, validation.h5; "
            "its name is the encoder's"
        ),
    ],
    job: Job,
    model: Annotated[
        Path | None, typer.Option(help="model.json of the model that the network names, if any")
    ] = None,
) -> None:
    """Train a speaker encoder; by default the weights of the lowest equal error rate are kept."""
    settings = json.loads(config)
    table = joint_table(manifests).query("split == 'train'").sort_values("utterance_id")
    held = settings["validation"]
    speakers, held_out = hold_out(
        sorted(table["speaker_id"].unique()), held["speakers"], settings["seed"], "speakers"
    )
    own = table[table["speaker_id"].isin(speakers)]
    trials = generate_trials(
        table[table["speaker_id"].isin(held_out)],
        None,
        held["nontargets"],
        settings["seed"],
        across_sessions=False,
    )
    files = dict(
        zip(table["utterance_id"], zip(table["path"], table["checksum"], strict=True), strict=True)
    )
    waveforms = Waveforms(files)
    validation = Validation(trials, waveforms, held["max_seconds"])
    augmentation = Augmentation(settings["augmentation"]) if settings["augmentation"] else None
    torch.manual_seed(settings["seed"])
    network = create_network(settings["network"], model.parent if model else None)
    network.freeze(settings["trained_layers"])
    steps = steps_of(settings, len(own))
    task = SpeakerTask(
        network,
        make_criterion(settings["loss"], network.dim, len(speakers)),
        SpeakerUtterances(
            {name: list(rows["utterance_id"]) for name, rows in own.groupby("speaker_id")},
            waveforms,
            settings["utterances"],
            round(settings["crop_seconds"] * SAMPLE_RATE),
            augmentation,
        ),
        validation,
        batch_size=settings["speakers"],
        rates=(settings["learning_rate"]["pretrained"], settings["learning_rate"]["new"]),
        schedule=schedule_of(settings["schedule"], steps),
        weight_decay=settings["weight_decay"],
    )
    say(
        f"{len(own)} utterances of {len(speakers)} speakers to train on, {len(trials)} trials of "
        f"{len(held_out)} others to validate on; {steps} steps"
    )
    if few := int((own.groupby("speaker_id").size() < settings["utterances"]).sum()):
        say(
            f"{few} of {len(speakers)} training speakers have fewer than "
            f"{settings['utterances']} utterances: a batch takes some of theirs more than once"
        )
    short = own["num_samples"] < settings["crop_seconds"] * own["sample_rate"]
    if short.any():
        say(
            f"{short.sum()} of {len(own)} training utterances are shorter than "
            f"{settings['crop_seconds']} s and are repeated until they fill it"
        )
    package = Path(etaflow.__path__[0])
    code = source_files(__file__, package)
    sounds = augmentation.digest if augmentation else ""
    models = [model] if model else []
    history = train(
        task,
        job.settings(settings, steps=steps, select="eer"),
        fingerprint=fingerprint(config + sounds, *manifests, *models, *code),
        **job.resources(),
    )
    if history is None:
        return
    kept = kept_step(history, "eer", settings["keep"])
    made = history[-1][0]
    early = f", ended at {made}: {settings['patience']} validations brought no better"
    say(f"kept the weights of step {kept} of {steps}{early if made < steps else ''}")
    weights = label_of(network, read_model_info(model.parent)[0].weights if model else None, kept)
    with atomic_directory(output_dir) as part:
        facts = {key: value for key, value in settings.items() if key != "network"}
        save_network(
            network, part, name=output_dir.name, weights=weights, step=kept, training=facts
        )
        write_history(history, part / "metrics.tsv")
        # As it will be read: without what the training's precision put around it.
        _, saved = load_network(part)
        names = validation.utterance_ids
        owners = table.set_index("utterance_id").loc[names, "speaker_id"].tolist()
        embeddings = validation.embed(saved.to("cuda" if job.gpus else "cpu"))
        Embeddings(names, owners, embeddings, output_dir.name, weights).write(
            part / "validation.h5"
        )
    shutil.rmtree(job.working_dir)


if __name__ == "__main__":
    app()

"""Train a separator on mixtures of the speakers of a corpus."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import etaflow
from etaflow.atomic import atomic_directory
from etaflow.manifest import first_names
from etaflow.models import read_model_info
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.separation.crops import MixtureCrops, MixtureFiles
from etaflow.separation.networks import create_separator, save_separator
from etaflow.separation.tables import read_mixtures, speakers_of_mixtures
from etaflow.separation.task import SeparationTask, Validation, freeze_for
from etaflow.training import kept_step, train, write_history
from etaflow.training.command import Job, label_of, say, schedule_of, with_job
from etaflow.weights import CONFIG

app = new_app()


def speakers_of(table: pd.DataFrame) -> set[str]:
    """All who speak in a table of mixtures."""
    return set(speakers_of_mixtures(table).flat)


def earlier_speakers(model: Path | None) -> tuple[set[str], set[str]]:
    """Those that the model was trained on, and validated on, as far as it says so."""
    config = read_model_info(model.parent)[1] / CONFIG if model else None
    if config is None or not config.exists():
        return set(), set()
    facts = json.loads(config.read_text(encoding="utf-8"))
    return set(facts.get("speakers", [])), set(facts.get("validation_speakers", []))


def sampled(table: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """So many mixtures, drawn, or all of them."""
    if count is None:
        return table
    if not 1 <= count <= len(table):
        raise typer.BadParameter(
            f"--config: validation_mixtures {count}; there are {len(table)}, null takes all"
        )
    return table.sample(count, random_state=seed).sort_values("mixture_ID")


@app.command()
@with_job
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {mixtures, network, dynamic_mixing, crop_seconds, batch_size, steps, "
            "trained, learning_rate, weight_decay, schedule, precision, ema, clip_norm, "
            "validate_every, validation_mixtures, patience, keep, seed}"
        ),
    ],
    mixtures: Annotated[
        list[Path], typer.Option(help="TSV of mixtures to train on; repeat for further shards")
    ],
    validation: Annotated[
        list[Path],
        typer.Option(help="TSV of mixtures of other speakers; repeat for further shards"),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            help="gets separator.safetensors, config.json, model.json, metrics.tsv; its name is "
            "the separator's"
        ),
    ],
    job: Job,
    model: Annotated[
        Path | None, typer.Option(help="model.json of the separator to train further, if any")
    ] = None,
) -> None:
    """Train a separator; by default the weights of the lowest validation loss are kept."""
    settings: dict[str, Any] = json.loads(config)
    table, held_out = read_mixtures(mixtures), read_mixtures(validation)
    speakers, (earlier, judged_by) = speakers_of(table), earlier_speakers(model)
    heard = speakers | earlier
    if both := sorted(heard & speakers_of(held_out)):
        raise typer.BadParameter(
            f"{len(both)} speaker(s) of --validation are in --mixtures, or were trained on by the "
            f"--model: {first_names(both)}; validate on others"
        )
    torch.manual_seed(settings["seed"])
    network = create_separator(settings["network"], model.parent if model else None)
    freeze_for(network, settings["trained"])
    files = MixtureFiles(table)
    crop = round(settings["crop_seconds"] * files.sample_rate)
    measured = sampled(held_out, settings["validation_mixtures"], settings["seed"])
    steps = settings["steps"]
    task = SeparationTask(
        network,
        MixtureCrops(files, crop, settings["dynamic_mixing"]),
        Validation(MixtureFiles(measured)),
        batch_size=settings["batch_size"],
        rates=(settings["learning_rate"]["pretrained"], settings["learning_rate"]["new"]),
        schedule=schedule_of(settings["schedule"], steps),
        weight_decay=settings["weight_decay"],
    )
    say(
        f"{len(table)} mixtures of {len(speakers)} speakers to train on, {len(measured)} of "
        f"{len(speakers_of(measured))} others to validate on; {steps} steps"
    )
    if short := int((table["length"] < crop).sum()):
        say(
            f"{short} of {len(table)} training mixtures are shorter than "
            f"{settings['crop_seconds']} s and are padded"
        )
    models = [model] if model else []
    code = source_files(__file__, Path(etaflow.__path__[0]))
    history = train(
        task,
        job.settings(settings, select="loss"),
        fingerprint=fingerprint(
            f"{config} {len(mixtures)}", *mixtures, *validation, *models, *code
        ),
        **job.resources(),
    )
    if history is None:
        return
    kept = kept_step(history, "loss", settings["keep"])
    made = history[-1][0]
    early = f", ended at {made}: {settings['patience']} validations brought no better"
    say(f"kept the weights of step {kept} of {steps}{early if made < steps else ''}")
    weights = label_of(network, read_model_info(model.parent)[0].weights if model else None, kept)
    with atomic_directory(output_dir) as part:
        save_separator(
            network,
            part,
            name=output_dir.name,
            weights=weights,
            step=kept,
            training={key: value for key, value in settings.items() if key != "network"},
            speakers=sorted(heard),
            validation_speakers=sorted(judged_by | speakers_of(measured)),
        )
        write_history(history, part / "metrics.tsv")
    shutil.rmtree(job.working_dir)


if __name__ == "__main__":
    app()

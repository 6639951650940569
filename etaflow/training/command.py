"""What programs that train have in common: their options, and what they say."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from etaflow.training.trainer import Settings

WorkingDir = Annotated[Path, typer.Option(help="for checkpoints; emptied on success")]
CheckpointEvery = Annotated[int, typer.Option(help="steps between checkpoints", min=1)]
CheckpointsKept = Annotated[int, typer.Option(help="so many of the newest", min=1)]
TrackerName = Annotated[
    str, typer.Option(help="tensorboard, wandb or comet_ml, to follow the training by; or none")
]
TrackerDir = Annotated[Path | None, typer.Option(help="the tracker's local files, needed with one")]
Gpus = Annotated[
    int, typer.Option(help="GPUs given to this job; more than one by `accelerate launch`")
]
Threads = Annotated[int, typer.Option(help="CPU cores given to this job")]


def say(message: str) -> None:
    """Print to the log, once: several processes come by here."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(message, err=True)


def settings_of(config: Mapping[str, Any], **options: Any) -> Settings:
    """The settings that a config's entry and these options hold; the options come first."""
    names = {field.name for field in fields(Settings)}
    return Settings(**{key: config[key] for key in names & config.keys()} | options)


def resources_of(tracker: str, tracker_dir: Path | None, gpus: int, threads: int) -> dict[str, Any]:
    """What `train` is told of the tracker and of this job's processors.

    Raises:
        BadParameter: a tracker has no folder.
    """
    if tracker != "none" and tracker_dir is None:
        raise typer.BadParameter("--tracker needs --tracker-dir")
    return {
        "tracker": None if tracker == "none" else tracker,
        "tracker_dir": tracker_dir,
        "gpus": gpus,
        # On GPUs the other cores prepare batches; on the CPU all of them compute.
        "workers": max(0, threads // gpus - 1) if gpus else 0,
    }

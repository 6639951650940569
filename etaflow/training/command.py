"""What programs that train have in common: their options, and what they say."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from etaflow.layered import LayeredNetwork
from etaflow.models import worst_weights
from etaflow.schedule import rate
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


def schedule_of(settings: Mapping[str, Any], steps: int) -> Callable[[int], float]:
    """The factor on the learning rates in each of so many steps; see `etaflow.schedule.rate`."""
    options = {"decay": settings["decay"]} if "decay" in settings else {}
    warmup, kind = settings["warmup_steps"], settings["kind"]
    return partial(rate, steps=steps, warmup=warmup, kind=kind, **options)


def label_of(network: LayeredNetwork, given: str | None, kept: int) -> str:
    """How far to trust weights that were kept after so many steps; `given` is their model's."""
    pretrained = network.layers[: network.pretrained]
    if kept == 0:
        return given if given and len(pretrained) == len(network.layers) else "untrained"
    frozen = any(not p.requires_grad for layer in pretrained for p in layer.parameters())
    return worst_weights(["trained", given]) if given and frozen else "trained"


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

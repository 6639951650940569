"""What programs that train have in common: their options, and what they say."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from etaflow.layered import LayeredNetwork
from etaflow.models import worst_weights
from etaflow.schedule import rate
from etaflow.training.trainer import Settings


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where a training runs and what it is given there, on which its result does not depend."""

    working_dir: Annotated[Path, typer.Option(help="for checkpoints; emptied on success")]
    checkpoint_every: Annotated[int, typer.Option(help="steps between checkpoints", min=1)]
    checkpoints_kept: Annotated[int, typer.Option(help="so many of the newest", min=1)] = 2
    tracker: Annotated[
        str, typer.Option(help="tensorboard, wandb or comet_ml, to follow the training by; or none")
    ] = "none"
    tracker_dir: Annotated[
        Path | None, typer.Option(help="the tracker's local files, needed with one")
    ] = None
    gpus: Annotated[
        int,
        typer.Option(help="GPUs given to this job; with several, start by etaflow.launch"),
    ] = 0
    threads: Annotated[int, typer.Option(help="CPU cores given to this job")] = 1

    def __post_init__(self) -> None:
        """Raise `BadParameter` for a tracker that has no folder."""
        if self.tracker != "none" and self.tracker_dir is None:
            raise typer.BadParameter("--tracker needs --tracker-dir")

    def settings(self, config: Mapping[str, Any], **options: Any) -> Settings:
        """The settings that a config's entry, these options, which come first, and the job hold."""
        names = {field.name for field in fields(Settings)}
        own = {"checkpoint_every": self.checkpoint_every, "checkpoints_kept": self.checkpoints_kept}
        return Settings(**{key: config[key] for key in names & config.keys()} | options | own)

    def resources(self) -> dict[str, Any]:
        """What `train` is told of this job."""
        return {
            "working_dir": self.working_dir,
            "tracker": None if self.tracker == "none" else self.tracker,
            "tracker_dir": self.tracker_dir,
            "gpus": self.gpus,
            # On GPUs the other cores prepare batches; on the CPU all of them compute.
            "workers": max(0, self.threads // self.gpus - 1) if self.gpus else 0,
        }


def with_job(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose options are its own and those of a `Job`, which it gets as `job`."""
    shared = signature(Job).parameters
    own = {name: each for name, each in signature(command).parameters.items() if name != "job"}

    @wraps(command)
    def run(**options: Any) -> None:
        job = Job(**{name: options.pop(name) for name in shared})
        command(**options, job=job)

    # Typer reads both.
    options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (own | shared).values()]
    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in options}
    return run


def say(message: str) -> None:
    """Print to the log, once: several processes come by here."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(message, err=True)


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

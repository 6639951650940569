"""TensorBoard, Weights & Biases or Comet: what a training shows while it runs."""

from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from etaflow.training.task import Metrics, Sounds, TrainingError

TRACKERS = ("tensorboard", "wandb", "comet_ml")
PROJECT = "etaflow"


def check_tracker(kind: str) -> None:
    """Raise `TrainingError` unless `kind` is one of `TRACKERS` and its package is installed."""
    if kind not in TRACKERS:
        raise TrainingError(f"tracker {kind!r}: known are {', '.join(TRACKERS)}")
    if find_spec(kind) is None:
        raise TrainingError(
            f"tracker {kind!r}: its package is not installed. `pip install {kind}`, or say "
            "`tracker: tensorboard`, or `tracker: null` for none"
        )


class Tracker:
    """One run of a tracker, in which a resumed training goes on.

    What a killed training showed after its last checkpoint is shown once by TensorBoard (the later
    one) and Weights & Biases (the earlier one); Comet keeps both.
    """

    def __init__(
        self, accelerator: Accelerator, kind: str, folder: Path, identity: str, start: int
    ) -> None:
        """Open the run.

        Args:
            accelerator: made with `log_with=kind` and a `project_dir`.
            kind: one of `TRACKERS`.
            folder: of local files; its name is the run's.
            identity: tells this training from all others.
            start: steps already made and shown.
        """
        self._accelerator, self._kind = accelerator, kind
        name = folder.name
        # Of characters and a length that both services take.
        run = blake2b(f"{name} {identity}".encode(), digest_size=20).hexdigest()
        options: dict[str, dict[str, Any]] = {
            # Readers forget what earlier files of the folder hold from this step on.
            "tensorboard": {"purge_step": start + 1 if start else 0},
            # Weights & Biases itself drops steps that it has already.
            "wandb": {"id": run, "resume": "allow", "name": name, "dir": str(folder)},
            "comet_ml": {"experiment_key": run, "mode": "get_or_create"},
        }
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard's "project" is the folder of the run.
        project = name if kind == "tensorboard" else PROJECT
        accelerator.init_trackers(project, init_kwargs={kind: options[kind]})

    def log(self, values: Metrics, step: int) -> None:
        """Show scalars."""
        if values:
            self._accelerator.log(values, step=step)

    def log_sounds(self, sounds: Sounds, sample_rate: int, step: int) -> None:
        """Give waveforms (T,) to listen to."""
        run = self._accelerator.get_tracker(self._kind, unwrap=True)
        for name, sound in sounds.items():
            waveform = sound.detach().cpu().float().clamp(-1, 1).numpy()
            if self._kind == "tensorboard":
                run.add_audio(name, waveform[None], step, sample_rate)
            elif self._kind == "wandb":
                from wandb import Audio

                run.log({name: Audio(waveform, sample_rate=sample_rate)}, step=step)
            else:
                run.log_audio(waveform, sample_rate, file_name=f"{name}.wav", step=step)
        if self._kind == "tensorboard":
            run.flush()

"""The loop itself: steps, validations, checkpoints."""

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader

from etaflow.progress import bar
from etaflow.training.batches import Batches
from etaflow.training.checkpoints import alone_in, load_checkpoint, save_checkpoint
from etaflow.training.record import History, Record
from etaflow.training.task import Task, TrainingError
from etaflow.training.tracking import Tracker
from etaflow.training.trainer import Settings, Trainer, make_accelerator

SHOWN_EVERY = 50  # steps between the points of a tracker's curves


def train(
    task: Task,
    settings: Settings,
    *,
    working_dir: str | Path,
    fingerprint: str,
    tracker: str | None = None,
    tracker_dir: Path | None = None,
    gpus: int = 0,
    workers: int = 0,
) -> History | None:
    """Train, and leave the weights of `task.model` that are kept in its module.

    Takes up from the newest checkpoint under `working_dir/fingerprint` if there is one. Removing
    that folder once the results are safe is the caller's part. For several GPUs it runs in as many
    processes, started by `etaflow.launch`; those of all machines see one `working_dir`.

    Args:
        task: what to train.
        settings: how.
        working_dir: where the working state lives, outside of declared outputs.
        fingerprint: of everything that the result depends on (`etaflow.provenance.fingerprint`).
        tracker: `tensorboard`, `wandb` or `comet_ml`, to follow the training by; None for none.
        tracker_dir: the tracker's local files, needed with one; its name is shown as the run's.
        gpus: GPUs given to this job, on all machines together.
        workers: processes that prepare batches; 0 does it in this one.

    Returns:
        Rows (steps made, metric, value): `train/NAME` is the mean of a loss or of an optimiser's
        gradient norm (before clipping) since the row before, `valid/NAME` a validation metric.
        None in a process that is not the main one: it has nothing to write.

    Raises:
        TrainingError: a loss, a gradient or the selecting metric is NaN or infinite, or there is no
            readable checkpoint among those there, or another process is at it, or `precision`,
            `tracker`, `batch_size`, `patience`, `keep` or the number of processes cannot be.
        DeviceError: a GPU was given and none can be seen.
    """
    accelerator = make_accelerator(settings.precision, gpus, tracker, tracker_dir)
    if task.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"batch_size {task.batch_size} is not a multiple of {accelerator.num_processes} "
            "processes: it is that of all of them together"
        )
    record = Record(settings.select, settings.patience, settings.keep)
    trainer = Trainer(task, settings, accelerator)
    main, folder = accelerator.is_main_process, Path(working_dir) / fingerprint

    def validate(step: int) -> bool:
        """Whether the training is over: what the main process finds, in all of them."""
        if main:
            metrics, sounds = trainer.validate()
            record.add_validation(step, metrics, trainer.averaged.module)
            if shown_by:
                shown_by.log(
                    {f"valid/{name}": float(value) for name, value in metrics.items()}, step
                )
                shown_by.log_sounds(sounds, task.sample_rate, step)
        return bool(broadcast_object_list([record.is_over()])[0])

    with alone_in(folder) if main else nullcontext():
        accelerator.wait_for_everyone()
        state, damaged = load_checkpoint(folder)
        if main and damaged:
            found = f"step {state['step']}" if state else "the beginning"
            print("\n".join([*damaged, f"going on from {found}"]), file=sys.stderr)
        start = 0
        if state:
            trainer.load_state_dict(state["trainer"])
            record.load_state_dict(state["record"])
            start = int(state["step"])
        shown_by = None
        if main and tracker and tracker_dir:
            shown_by = Tracker(accelerator, tracker, tracker_dir, fingerprint, start)
        if not state:
            if shown_by:
                shown_by.log_sounds(task.recordings(), task.sample_rate, 0)
            validate(start)
        loader: DataLoader[Any] = DataLoader(
            task.dataset,
            batch_sampler=Batches(
                len(task.dataset),
                task.batch_size,
                settings.seed,
                start,
                start if record.is_over() else settings.steps,
                accelerator.process_index,
                accelerator.num_processes,
            ),
            num_workers=workers,
            pin_memory=gpus > 0,
        )
        with bar(settings.steps, f"training {task.model}", "steps", start, not main) as progress:
            for step, batch in enumerate(loader, start):
                losses = trainer.step(batch, step)
                record.add_losses(losses)
                done = step + 1
                if shown_by and done % SHOWN_EVERY == 0:
                    means = record.since_shown.take()
                    shown_by.log({f"train/{name}": mean for name, mean in means.items()}, done)
                last = done == settings.steps
                if done % settings.validate_every == 0 or last:
                    last |= validate(done)
                if main and (done % settings.checkpoint_every == 0 or last):
                    state = {
                        "step": done,
                        "trainer": trainer.state_dict(),
                        "record": record.state_dict(),
                    }
                    save_checkpoint(folder, done, state, settings.checkpoints_kept)
                figures = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
                best = f"best {settings.select} {record.best:.3g}"
                progress.set_description(f"{figures}, {best}", refresh=False)
                progress.update()
                if last:
                    break
        accelerator.wait_for_everyone()
        if accelerator.num_processes > 1:
            # A thread of Gloo lets go of the barrier's tensors, for which it needs the GIL. The end
            # of the group waits for that thread with the GIL held: seen to hang, 1 time in 5.
            time.sleep(1)
        accelerator.end_training()
    if not main:
        return None
    trainer.plain(task.model).load_state_dict(record.weights)
    return record.history

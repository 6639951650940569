"""What a unit of work took where it was measured: in this run, or on the machine of `rates.tsv`.

A measurement of this run is a finished job's benchmark file (seconds and memory, by Snakemake),
divided by the job's amount as it is now. It is passed over where that would be nonsense: an
amount of zero or unknown, a file without a time, a job that went on from where a killed one was
(its log begins above zero), one whose recorded config is not that of now, or, of rules that may
use a GPU, one of which nothing says whether it did. Mixing does not log that it went on: after a
kill its time is too short.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from etaflow.planning.jobs import Job
from etaflow.planning.study import Amount

# rule, variant, unit, device (`cpu` or `gpu`)
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Rate:
    """Seconds that a unit takes on `threads` threads, or of all GPUs; MB of memory, if known."""

    seconds: float
    threads: int
    memory_mb: float | None
    source: str


def read_benchmark(path: Path) -> tuple[float, float | None] | None:
    """Seconds and peak of memory, MB, of a benchmark file; None if it has no time."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
        seconds = float(row["s"])
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        return None
    try:
        memory = float(row["max_rss"])
    except (KeyError, TypeError, ValueError):
        memory = None  # "-": too short to be looked at
    return (seconds, memory) if seconds > 0 else None


def went_on(log: Path) -> bool:
    """Whether a job's log begins with progress that an earlier one had made."""
    try:
        with log.open(encoding="utf-8", errors="replace") as stream:
            first = next((line for line in stream if re.search(r"\d+/\d+ .*\[00:00<", line)), "")
    except OSError:
        return False
    found = re.search(r"(\d+)/\d+ .*\[00:00<\?", first)
    return found is not None and int(found[1]) > 0


def _device(job: Job) -> str | None:
    if not job.takes_gpus:
        return "cpu"
    if job.gpus_then is None:
        return None
    return "gpu" if job.gpus_then else "cpu"


def measured_rates(jobs: Iterable[tuple[Job, Amount]]) -> dict[Key, Rate]:
    """Rates of this run: times of all its finished jobs of a kind by their amounts."""
    found: dict[Key, list[tuple[float, float, float | None, Job]]] = defaultdict(list)
    for job, amount in jobs:
        device, measured = _device(job), read_benchmark(Path(job.benchmark))
        if measured is None or device is None or not amount.value:
            continue
        if job.config_then is False or went_on(Path(job.log)):
            continue
        key = (job.rule, amount.variant, amount.unit, device)
        # What several GPUs shared counts for each, however many there are now.
        held = (job.gpus_then or 1) if device == "gpu" else 1
        found[key].append((measured[0] * held, amount.value, measured[1], job))
    rates = {}
    for key, items in found.items():
        seconds, amounts, memories, _ = zip(*items, strict=True)
        known = [memory for memory in memories if memory is not None]
        number = f"{len(items)} finished job{'s' if len(items) > 1 else ''} of this run"
        place = str(Path(items[0][3].benchmark).parent if len(items) > 1 else items[0][3].benchmark)
        rates[key] = Rate(
            sum(seconds) / sum(amounts),
            items[0][3].threads,
            max(known, default=None),
            f"{number}, {place}",
        )
    return rates


def shipped_rates() -> dict[Key, Rate]:
    """The rates of `rates.tsv`, beside this module."""
    text = files("etaflow.planning").joinpath("rates.tsv").read_text(encoding="utf-8")
    rates = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        memory = float(row["memory_mb"]) if row["memory_mb"] else None
        key = (row["rule"], row["variant"], row["unit"], row["device"])
        rates[key] = Rate(float(row["seconds"]), 1, memory, row["source"])
    return rates


def rate_of(
    job: Job, amount: Amount, here: Mapping[Key, Rate], shipped: Mapping[Key, Rate]
) -> tuple[Rate | None, str]:
    """The best rate there is for a job, and its device: this run's first, and a GPU's for a GPU.

    A job that asks for a GPU gets the rate of a CPU where no GPU was measured.
    """
    devices = ("gpu", "cpu") if job.gpus else ("cpu",)
    for device in devices:
        for rates in (here, shipped):
            rate = rates.get((job.rule, amount.variant, amount.unit, device))
            if rate is not None:
                return rate, device
    return None, devices[0]

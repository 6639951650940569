"""The plan as a table: a row a rule and variant, totals, and where every number comes from."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etaflow.planning.amounts import amount_of
from etaflow.planning.jobs import Job, planned_jobs
from etaflow.planning.rates import Key, Rate, measured_rates, rate_of, shipped_rates
from etaflow.planning.study import Amount, Study

HEADER = ["rule", "jobs", "one job", "time", "disk", "memory", "amount from", "rate"]
NOT_MEASURED = "not measured"
FURTHER = 12  # rules that the totals name


@dataclass
class Row:
    """Jobs of one rule that take the same time a unit.

    Attributes:
        rule: of the jobs.
        variant: what else the time of a unit depends on.
        unit: of the amounts.
        jobs: with what each is made of.
        rate: that holds for them, or None.
        device: of the rate, `cpu` or `gpu`.
    """

    rule: str
    variant: str
    unit: str
    gpus: int
    rate: Rate | None
    device: str
    jobs: list[tuple[Job, Amount]] = field(default_factory=list)

    @property
    def unknown(self) -> int:
        """How many of the jobs have an amount that is not known."""
        return sum(amount.value is None for _, amount in self.jobs)

    @property
    def seconds(self) -> float | None:
        """Processor seconds, or GPU seconds, of the jobs whose amount is known; None: no rate."""
        if self.rate is None or self.unknown == len(self.jobs):
            return None
        held = 1 if self.device == "gpu" else self.rate.threads
        return held * self.rate.seconds * sum(amount.value or 0 for _, amount in self.jobs)

    @property
    def written(self) -> float | None:
        """Bytes written by the jobs of which that is known."""
        known = [amount.written for _, amount in self.jobs if amount.written is not None]
        return sum(known) if known else None

    @property
    def at_most(self) -> bool:
        """Whether a job may be over earlier."""
        return any(amount.at_most for _, amount in self.jobs)


def rows_of(jobs: Sequence[tuple[Job, Amount]], here: dict[Key, Rate]) -> list[Row]:
    """The rows of a plan, by rule in order of its first job."""
    shipped = shipped_rates()
    rows: dict[tuple[str, str, str, int], Row] = {}
    for job, amount in jobs:
        key = (job.rule, amount.variant, amount.unit, job.gpus)
        if key not in rows:
            rate, device = rate_of(job, amount, here, shipped)
            rows[key] = Row(*key, rate, device)
        rows[key].jobs.append((job, amount))
    return sorted(rows.values(), key=lambda row: (row.rule, row.variant, row.unit))


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3.4 h`, `1,234 h`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    if seconds < 3570:
        minutes = seconds / 60
        return f"{minutes:.0f} min" if minutes >= 9.5 else f"{minutes:.1f} min"
    return f"{_plain(seconds / 3600)} h"


def size(count: float) -> str:
    """Bytes as `354 GB`, in powers of 1000."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{_plain(count)} {unit}"
    return f"{_plain(count / 1000)} TB"


def _plain(value: float) -> str:
    """Two digits at least, thousands parted."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def _one_job(row: Row) -> str:
    known = sorted(amount.value for _, amount in row.jobs if amount.value is not None)
    if not known:
        return f"? {row.unit}"
    low, high = _plain(known[0]), _plain(known[-1])
    text = low if low == high else f"{low} to {high}"
    return f"{'at most ' if row.at_most else ''}{text} {row.unit}"


def _time(row: Row) -> str:
    if row.rate is None:
        return NOT_MEASURED
    if row.seconds is None:
        return "unknown"
    sign = ("at most " if row.at_most else "") + ("at least " if row.unknown else "")
    device = "GPU" if row.device == "gpu" else "CPU"
    wanted = ", GPU not measured" if row.gpus and row.device == "cpu" else ""
    return f"{sign}{duration(row.seconds)} {device}{wanted}"


def _memory(row: Row) -> str:
    if row.rate is not None and row.rate.memory_mb is not None:
        return size(row.rate.memory_mb * 1e6)
    if any(job.asks_by_inputs for job, _ in row.jobs):
        return "asks by its inputs"
    asked = [job.asked_mb for job, _ in row.jobs if job.asked_mb is not None]
    return f"asks {size(max(asked) * 1e6)}" if asked else "-"


def format_rows(rows: Sequence[Row]) -> list[str]:
    """The table, with a note for each source of a rate."""
    notes: dict[str, int] = {}
    lines = [HEADER]
    for row in rows:
        sources = dict.fromkeys(amount.source for _, amount in row.jobs if amount.source)
        note = ""
        if row.rate is not None:
            note = f"[{notes.setdefault(row.rate.source, len(notes) + 1)}]"
        lines.append(
            [
                f"{row.rule} {row.variant}".rstrip(),
                f"{len(row.jobs):,}",
                _one_job(row),
                _time(row),
                "-" if row.written is None else size(row.written),
                _memory(row),
                "; ".join(sources) or "-",
                note or "-",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return [*shown, "", *(f"[{number}] {source}" for source, number in notes.items())]


def _named(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.rule for row in rows))
    more = f" and {len(names) - FURTHER} more" if len(names) > FURTHER else ""
    return ", ".join(names[:FURTHER]) + more


def format_totals(rows: Sequence[Row]) -> list[str]:
    """Sums of what is known, and what they leave out."""
    jobs = sum(len(row.jobs) for row in rows)
    lines = [f"in all: {jobs:,} jobs"]
    out = [row for row in rows if row.rate is None]
    blind = [row for row in rows if row.unknown]
    left = "at least " if out or blind else ""
    by_device: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.seconds is not None:
            wanted = "instead" if row.gpus and row.device == "cpu" else row.device
            by_device[wanted].append(row)

    def total(which: str) -> str:
        return duration(sum(row.seconds or 0 for row in by_device[which]))

    known = f"{left}{total('cpu')}" if by_device["cpu"] else "not known"
    lines.append(f"processor time of jobs without a GPU: {known}")
    asking = [row for row in rows if row.gpus and (row.rate is None or row.device != "gpu")]
    if any(row.gpus for row in rows):
        known = f"{left}{total('gpu')}" if by_device["gpu"] else "not known"
        lines.append(f"GPU time: {known}")
    if asking:
        lines.append(
            f"  no GPU rate is known of {_named(asking)}: run one job of each on the machine"
        )
        lines.append("  with the GPU and plan again there; its benchmark file is then the source")
    if by_device["instead"]:
        names = _named(by_device["instead"])
        lines.append(f"  without a GPU {names} would take {left}{total('instead')} of a processor")
    if out:
        lines.append(f"  not measured, and left out: {_named(out)}")
    if blind:
        lines.append(f"  amount not known, and left out: {_named(blind)}")
    written = sum(row.written or 0 for row in rows)
    least = "at least " if blind else ""
    lines.append(
        f"disk: {least}{size(written)}, computed from the formats (FLAC as if uncompressed);"
    )
    lines.append("  models, checkpoints, tables and what has a dash above are left out")
    largest = [
        (row.rate.memory_mb, row.rule)
        for row in rows
        if row.rate is not None and row.rate.memory_mb is not None
    ]
    asked = [(job.asked_mb, row.rule) for row in rows for job, _ in row.jobs if job.asked_mb]
    if asked:
        memory, rule = max(asked)
        lines.append(f"memory: the largest job asks for {size(memory * 1e6)} ({rule})")
    later = [row for row in rows if any(job.asks_by_inputs for job, _ in row.jobs)]
    if later:
        lines.append(f"  not known before their inputs are there: {_named(later)}")
    if largest:
        memory, rule = max(largest)
        lines.append(f"  measured at most {size(memory * 1e6)} ({rule})")
    return lines


def plan_table(snakefile: Path, arguments: Sequence[str]) -> str:
    """What `etaflow plan` prints.

    Args:
        snakefile: of the project.
        arguments: for Snakemake's command line.

    Raises:
        PlanError: Snakemake could not plan.
    """
    plan = planned_jobs(snakefile, arguments)
    if not plan.jobs:
        return "nothing is left to do"
    study = Study(plan.config)
    here = measured_rates((job, amount_of(job, study)) for job in plan.known)
    rows = rows_of([(job, amount_of(job, study)) for job in plan.jobs], here)
    return "\n".join([*format_rows(rows), "", *format_totals(rows)])

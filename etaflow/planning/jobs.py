"""What Snakemake would run.

Its own command line is called in this process (`parse_args`, `args_to_api`), with `--dry-run`, so
that profiles, `--config` and messages are those of `snakemake`, without a copy of its arguments.
Jobs are read from the log records of the event JOB_INFO, whose fields are the interface of
Snakemake's logger plugins. The text of a dry run would have to be parsed, and a logger plugin would
have to be a package of its own. Inside knowledge is only that the validated config is a global of
`snakemake.workflow`, and that the commands of finished jobs are in its persistence.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class PlanError(ValueError):
    """Snakemake could not plan; it has said why."""


@dataclass(frozen=True)
class Job:
    """A job that would run.

    Attributes:
        rule: the rule, without what tells its copies apart: `build_manifest`, `dump_features`.
        wildcards: of the job, with the corpus and ssl of a copy.
        threads: that it holds.
        gpus: that it asks for, after the profile's limits.
        asked_mb: memory that it asks for, MB; None if for none, or if its inputs are to say.
        asks_by_inputs: whether its inputs, which are not there yet, are to say.
        outputs: files that it makes.
        benchmark: where Snakemake writes its time and memory.
        log: its log file.
        takes_gpus: whether it may compute on a GPU.
        gpus_then: how many it had when it was last run, by the command that Snakemake recorded.
        config_then: whether it was then given the config of now. None, like that of `gpus_then`,
            stands for no record.
    """

    rule: str
    wildcards: Mapping[str, str]
    threads: int
    gpus: int
    asked_mb: float | None
    asks_by_inputs: bool
    outputs: tuple[str, ...]
    benchmark: str
    log: str
    takes_gpus: bool
    gpus_then: int | None
    config_then: bool | None


@dataclass(frozen=True)
class Plan:
    """Jobs to run, all jobs of the config, and the config with what it implies."""

    jobs: list[Job]
    known: list[Job]
    config: dict[str, Any]


def _empty_folders_of_snakemake() -> None:
    """Remove what a dry run leaves where no Snakemake ran before: empty folders, and a cache."""
    cache = Path(".snakemake/iocache/latest.pkl")
    cache.unlink(missing_ok=True)
    for folder, _, _ in os.walk(".snakemake", topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextlib.contextmanager
def _records(kept: list[logging.LogRecord]) -> Iterator[None]:
    """Collect the records of jobs, and let nothing but errors through to Snakemake's handlers."""
    from snakemake.logging import logger
    from snakemake_interface_logger_plugins.common import LogEvent

    def collect(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            kept.append(record)
        return record.levelno >= logging.ERROR

    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)


def _dry_run(arguments: Sequence[str]) -> tuple[list[logging.LogRecord], dict[str, Any], Any]:
    """Log records of the jobs, the config, and the workflow.

    Raises:
        PlanError: Snakemake's message was printed.
    """
    from snakemake.cli import args_to_api, parse_args  # isort: skip  (the others need it first)
    from snakemake import workflow as inside

    records: list[logging.LogRecord] = []
    fresh, said = not Path(".snakemake").exists(), io.StringIO()
    try:
        try:
            # Besides errors this prints which profile is used.
            with contextlib.redirect_stderr(said):
                parser, parsed = parse_args(["--dry-run", "--nolock", *arguments])
        except (SystemExit, Exception) as error:
            lines = [said.getvalue().strip(), "" if isinstance(error, SystemExit) else str(error)]
            raise PlanError("\n".join(line for line in lines if line)) from error
        # Of a dry run Snakemake says on stdout what is wrong.
        with _records(records), contextlib.redirect_stdout(sys.stderr):
            if not args_to_api(parsed, parser):
                raise PlanError("Snakemake cannot plan this; its message stands above")
    finally:
        if fresh:
            _empty_folders_of_snakemake()
    state: Any = vars(inside)
    return records, state["config"], state["workflow"]


def _made_by(record: Any, benchmark: str) -> tuple[str, dict[str, str]]:
    """The rule without what tells copies apart, which is a folder of the benchmark's path."""
    rule = benchmark.split("/")[2].removesuffix(".tsv")
    wildcards = {str(key): str(value) for key, value in dict(record.wildcards or {}).items()}
    if rule == "build_manifest":
        wildcards["corpus"] = record.rule_name.removeprefix("build_manifest_")
    if rule == "dump_features" and "layer" not in wildcards:
        folders = [output.split("/") for output in record.output]
        wildcards |= {"corpus": folders[0][3], "ssl": folders[0][4].rpartition("-l")[0]}
        wildcards["layer"] = " ".join(place[4].rpartition("-l")[2] for place in folders)
    return rule, wildcards


def _settings(command: str) -> str:
    """What a command says of the config."""
    found = re.search(r"--config ('[^']*'|\S+)", command)
    return found[1] if found else ""


def _jobs(records: list[logging.LogRecord], workflow: Any) -> list[Job]:
    from snakemake.common.tbdstring import TBDString

    jobs = []
    # Its persistence wants the dag's own files.
    made = {str(job.benchmark): job.output[0] for job in workflow.dag.jobs if job.benchmark}
    for record in records:
        found: Any = record
        if not found.benchmark:
            continue
        benchmark = str(found.benchmark)
        rule, wildcards = _made_by(found, benchmark)
        resources = dict(found.resources.items())
        outputs = tuple(str(output).split(" ")[0] for output in found.output)
        command = found.shellcmd or ""
        takes_gpus = "--gpus" in command
        finished = Path(benchmark).is_file()
        recorded = (workflow.persistence.shellcmd(made[benchmark]) or "") if finished else ""
        gpus = re.search(r"--gpus (\d+)", recorded)
        asked = resources.get("mem_mb")
        jobs.append(
            Job(
                rule=rule,
                wildcards=wildcards,
                threads=int(found.threads),
                gpus=int(resources.get("gpu", 0)),
                asked_mb=float(asked) if isinstance(asked, int | float) else None,
                asks_by_inputs=isinstance(asked, TBDString),
                outputs=outputs,
                benchmark=benchmark,
                log=str(found.log[0]) if found.log else "",
                takes_gpus=takes_gpus,
                gpus_then=int(gpus[1]) if gpus else None,
                config_then=_settings(recorded) == _settings(command) if recorded else None,
            )
        )
    return jobs


def planned_jobs(snakefile: Path, arguments: Sequence[str]) -> Plan:
    """Ask Snakemake what it would run, in the current folder.

    Args:
        snakefile: of the project.
        arguments: of the command line of Snakemake, without the targets: `--configfile FILE` …

    Raises:
        PlanError: it could not; its message was printed.
    """
    given = ["--snakefile", str(snakefile), *arguments]
    records, config, workflow = _dry_run(given)
    jobs = _jobs(records, workflow)
    known = jobs
    if Path("benchmarks", str(config["run"])).is_dir():
        # Finished jobs say what their like will take.
        records, _, workflow = _dry_run([*given, "--forceall"])
        known = _jobs(records, workflow)
    return Plan(jobs, known, json.loads(json.dumps(config)))

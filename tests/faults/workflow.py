"""The real workflow on the smallest config that has every long rule, and what to do to it."""

import os
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import h5py
import psutil

from etaflow.audio import file_checksum
from etaflow.manifest import read_table
from tests.workflow_tools import command_line, environment, untrained_config

TARGETS = ("conversion", "verification", "separation")


def tiny_config() -> dict[str, Any]:
    """The embedded default on nine voices: one entry of everything that runs long."""
    config = untrained_config()
    for section in ("sweep", "probe", "bundle"):
        config.pop(section, None)
    config["run"] = "tiny"
    del config["corpora"]["mini-voices"]
    config["corpora"]["mini"] |= {"speakers": 9, "sentences": 4, "shards": 1}
    config["corpora"]["mini"]["split"]["test_fraction"] = 0.34
    config["ssl"]["wavlm-tiny"] |= {"together": [], "batch_seconds": 8}
    config["eta"]["mini"]["pca"] = 4
    vocoder = config["vocoder"]["hifigan-tiny"]
    vocoder |= {"steps": 24, "adversarial_from": 12, "validate_every": 8, "batch_size": 2}
    vocoder |= {"validation_utterances": 2, "checkpoints": {"every": 4, "keep": 2}}
    vocoder["generator"] |= {"hidden_dim": 32, "upsample_channels": 32}
    conversion = config["conversion"]
    del conversion["references"]
    conversion["systems"] = {"knnvc-eta": {"method": "knn-eta"}}
    conversion |= {"pairs": {"sources_per_speaker": 2}, "bootstrap_rounds": 100}
    encoder = config["encoders"]["ecapa-aam"]
    encoder["network"] |= {"channels": 8, "dim": 16}
    encoder |= {"corpus": "mini", "speakers": 4, "utterances": 2, "crop_seconds": 0.5, "steps": 40}
    encoder |= {"validate_every": 10, "checkpoints": {"every": 4, "keep": 2}}
    encoder["validation"] = {"speakers": 2, "nontargets": 10, "max_seconds": 1.0}
    config["encoders"] = {"ecapa-aam": encoder}
    verification = config["verification"]
    trials = verification["trials"]["mini-test"] | {"corpus": "mini", "nontargets": 40}
    verification |= {"trials": {"mini-test": trials}, "bootstrap_rounds": 100}
    verification["systems"] = {"ecapa-aam": {"encoder": "ecapa-aam"}}
    verification["verifier"] = {"system": "ecapa-aam", "trials": "mini-test"}
    mixtures = config["mixtures"]["mini-clean"] | {"corpus": "mini", "shards": 1}
    mixtures |= {"counts": {"train": 8, "validation": 2, "test": 24}, "validation_speakers": 2}
    config["mixtures"] = {"mini-clean": mixtures}
    separator = config["separators"]["sepformer"]
    separator["network"] |= {"channels": 32, "kernel": 64}
    separator |= {"steps": 24, "validate_every": 8, "crop_seconds": 0.5}
    separator["checkpoints"] = {"every": 4, "keep": 2}
    config["separators"] = {"sepformer": separator}
    config["separation"] |= {"mixtures": ["mini-clean"], "bootstrap_rounds": 100}
    config["separation"]["systems"] = {"sepformer": {"separator": "sepformer"}}
    return config


class Running:
    """The workflow at work in `folder`, in a session of its own; a context manager.

    Whatever still runs of the session when the block ends is killed.
    """

    def __init__(self, folder: Path, config: dict[str, Any], *arguments: str) -> None:
        self.folder = folder
        self.printed = folder / "snakemake.txt"
        self.command = command_line(folder, config, *arguments)

    def __enter__(self) -> Self:
        # A file: an orphan that writes to a pipe that nobody reads any more would end by that.
        with self.printed.open("w") as stream:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=environment(),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        self.process.wait()

    def members(self) -> list[psutil.Process]:
        """All processes of the session, the oldest first."""
        found = []
        for pid in psutil.pids():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(pid) == self.process.pid:
                    found.append(psutil.Process(pid))
        return sorted(found, key=lambda process: process.create_time())

    def end_all(self) -> None:
        """End what is left of the session, as after a crash one ends the jobs that still run."""
        while left := [process for process in self.members() if process.pid != self.process.pid]:
            end(left)
        end([psutil.Process(self.process.pid)] if self.process.poll() is None else [])

    def jobs(self, rules: Iterable[str]) -> dict[str, psutil.Process]:
        """The program of a job of each of these rules that has one at work."""
        found: dict[str, psutil.Process] = {}
        for process in self.members():
            with suppress(psutil.NoSuchProcess):
                line = process.cmdline()
                if len(line) > 1 and Path(line[0]).name.startswith("python"):
                    rule = Path(line[1]).stem
                    if rule in rules and Path(line[1]).parent.name == "scripts":
                        found.setdefault(rule, process)
        return found

    def wait_for(self, rules: Iterable[str]) -> tuple[str, psutil.Process] | None:
        """The first job of these rules that is seen; None where the workflow ends without one."""
        while self.process.poll() is None:
            if jobs := self.jobs(rules):
                return next(iter(jobs.items()))
            time.sleep(0.02)
        return None

    def finish(self) -> tuple[int, str]:
        """Wait for the end; the exit status and what was printed."""
        return self.process.wait(), self.printed.read_text(encoding="utf-8")


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill these processes, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            with suppress(psutil.TimeoutExpired):
                process.wait(0.2)


def is_at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def seconds_taken(folder: Path, rule: str) -> float:
    """The shortest time that a job of a rule took, as its benchmark says."""
    files = (folder / "benchmarks/tiny" / rule).rglob("*.tsv")
    return min(float(read_table(file)["s"].iloc[0]) for file in files)


def results(folder: Path) -> dict[str, str]:
    """The checksum of each file of the results, temporary ones too.

    Of HDF5 without the attribute `fingerprint`, which names the work by the time of large inputs.
    Left out: what a training works on; journals, whose lines come in the order of the work and
    have the times of the recordings; and Snakemake's timestamps of folders.
    """
    root = folder / "results/tiny"
    left_out = re.compile(r"work/|.*journal(/|\.jsonl)|.*\.snakemake_timestamp")
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    names = {path: path.relative_to(root).as_posix() for path in files}
    kept = {path: name for path, name in names.items() if not left_out.match(name)}
    return {name: digest(path) for path, name in kept.items()}


def digest(path: Path) -> str:
    """Of a file's content."""
    if path.suffix != ".h5":
        return file_checksum(path)
    with h5py.File(path) as file:
        found = [(k, str(v)) for k, v in sorted(file.attrs.items()) if k != "fingerprint"]

        def add(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                content = (
                    repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
                )
                found.append((name, item.shape, str(item.dtype), zlib.crc32(content)))

        file.visititems(add)
    return repr(found)


def copied(undisturbed: Path, folder: Path, *without: str) -> Path:
    """A copy of a finished run, times included, but for these paths below its results."""
    for name in ("results", "resources", ".snakemake"):
        shutil.copytree(undisturbed / name, folder / name, dirs_exist_ok=True)
    remove(folder, *without)
    return folder


def remove(folder: Path, *patterns: str) -> None:
    """Delete files below the results; their folders stay."""
    for pattern in patterns:
        for path in (folder / "results/tiny").glob(pattern):
            path.unlink()

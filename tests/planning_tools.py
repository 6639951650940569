"""Jobs, manifests and plans for the tests of `etaflow.planning`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from etaflow.manifest import COLUMNS, write_manifest
from etaflow.planning.jobs import Job
from tests.workflow_tools import ROOT


def make_job(rule: str, benchmark: str = "none.tsv", **changes: Any) -> Job:
    """A job of a rule that takes no GPU, in its first state."""
    facts: dict[str, Any] = {
        "wildcards": {},
        "threads": 1,
        "gpus": 0,
        "asked_mb": 8000.0,
        "asks_by_inputs": False,
        "outputs": ("out",),
        "log": "none.log",
        "takes_gpus": False,
        "gpus_then": None,
        "config_then": None,
    }
    return Job(rule=rule, benchmark=benchmark, **{**facts, **changes})


def manifest_rows(shard: str, seconds: dict[tuple[str, str, str], list[float]]) -> pd.DataFrame:
    """Rows of a shard at 16 kHz: `{(speaker, session, split): [seconds of each utterance]}`."""
    rows = []
    for (speaker, session, split), lengths in seconds.items():
        for index, length in enumerate(lengths):
            name = f"{speaker}-{session}-{index}"
            row = dict.fromkeys(COLUMNS, "") | {"utterance_id": name, "speaker_id": speaker}
            row |= {"session_id": session, "split": split, "path": f"{name}.wav", "shard": shard}
            row |= {"num_samples": round(16_000 * length), "sample_rate": 16_000}
            rows.append(row | {"checksum": "0"})
    return pd.DataFrame(rows)[COLUMNS]


def write_shards(folder: Path, corpus: str, tables: list[pd.DataFrame]) -> None:
    """The manifests of a corpus under `folder/manifests`."""
    place = folder / "manifests" / corpus
    place.mkdir(parents=True)
    for index, table in enumerate(tables):
        write_manifest(table, place / f"{index:04d}.tsv")


def plan(folder: Path, config: dict[str, Any], *arguments: str, ok: bool = True) -> tuple[str, str]:
    """What `etaflow plan` prints in `folder`, and what it says on stderr."""
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-c", "from etaflow.cli import app; app()", "plan"]
    command += ["--configfile", str(file), *arguments]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout, done.stderr

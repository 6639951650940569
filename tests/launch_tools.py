"""Programs in several processes on the CPU, started as the workflow starts them on GPUs."""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

# A step of SLURM on machines that are all this one: it starts its command once a machine.
SRUN = """#!/usr/bin/env bash
[ "$1 $3 $5" = "--nodes --ntasks --ntasks-per-node" ] && [ "$2 $6" = "$4 1" ] || exit 64
machines=$2
while [ "${1#-}" != "$1" ]; do [ "${1#*=}" = "$1" ] && shift; shift; done
for node in $(seq 0 $((machines - 1))); do
  SLURM_NODEID=$node "$@" &
done
# As --kill-on-bad-exit: one that fails ends the others.
for node in $(seq $machines); do
  wait -n || { kill $(jobs -p); wait; exit 1; }
done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1 $2 $3" = "show hostnames one,two" ] && printf '127.0.0.1\\ntwo\\n'
"""


def _launched(count: int, *arguments: Any) -> list[str]:
    # GPUs that only the lease takes for some, so that the program computes on the CPU.
    devices = ",".join(f"simulated-{uuid4()}" for _ in range(count))
    started = ["env", f"CUDA_VISIBLE_DEVICES={devices}", "python", "-m", "etaflow.launch"]
    return [*started, "--gpus", str(count), *map(str, arguments)]


def processes(count: int, *arguments: Any) -> list[str]:
    """The command that runs a script in several processes."""
    return _launched(count, "--", *arguments)


def machines(count: int, *arguments: Any) -> list[str]:
    """The command that, in a SLURM job, runs a script in a process on each of so many machines."""
    return _launched(count, "--machines", count, "--", *arguments)


def slurm_job(folder: Path, number: int) -> dict[str, str]:
    """The environment of a SLURM job of two machines, whose programs `folder` gets."""
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "one,two"}
    return {**os.environ, **job, "PATH": f"{folder}:{os.environ['PATH']}"}

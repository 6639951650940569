"""Stands before the real Python on a node that has neither the GPU that it claims nor a network.

A script is run as the job asks, but on the CPU where it was given a GPU, and without a network.
Each is recorded with what its job was given. The first try of the script that HUNGRY names takes
more memory than any job asks for.
"""

import json
import os
import sys
from pathlib import Path

arguments = sys.argv[1:]
programs = [argument for argument in arguments if argument.endswith(".py")]
several = arguments[1] == "accelerate.commands.launch"
node = os.environ.get("SLURMD_NODENAME")
if node and arguments[1] == "etaflow.lease" and "CUDA_VISIBLE_DEVICES" in os.environ:
    # The first device of each node of SLURM is another, though the nodes are one machine.
    os.environ["CUDA_VISIBLE_DEVICES"] = f"{node}-{os.environ['CUDA_VISIBLE_DEVICES']}"
if not (arguments[0].endswith(".py") or several):
    # Snakemake itself, the lease, what starts a training.
    os.execv(sys.executable, [sys.executable, *arguments])
script, records = Path(programs[0]).stem, Path(os.environ["RECORDS"])
gpus = "0"
if "--gpus" in arguments:
    place = arguments.index("--gpus") + 1
    gpus, arguments[place] = arguments[place], "0"
hungry = os.environ.get("HUNGRY") == script and not (records / "eaten").exists()
record = {
    "script": script,
    "job": os.environ.get("SLURM_JOB_ID"),
    "gpus": int(gpus),
    "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    "node": node,
    "hungry": hungry,
    "pid": os.getpid(),
}
with (records / "scripts.jsonl").open("a") as file:
    file.write(json.dumps(record) + "\n")
if hungry:
    (records / "eaten").touch()
    eaten = []
    while True:
        eaten.append(b"x" * 100_000_000)
# Machines of one training talk to each other.
alone = [] if several else ["unshare", "--net"]
command = [*alone, sys.executable, *arguments]
os.execvp(command[0], command)

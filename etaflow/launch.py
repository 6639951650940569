"""Start a training in as many processes as it was given GPUs, on one machine or several.

    python -m etaflow.launch --gpus 4 -- scripts/train_vocoder.py --gpus 4 …
    python -m etaflow.launch --gpus 8 --machines 2 -- scripts/train_vocoder.py --gpus 8 …

The GPUs of a machine are leased (`etaflow.lease`). The second, in a SLURM job of two nodes, becomes
an `srun` of itself, a task a node, and each of these an `accelerate launch`. The program must see
the same files on all machines.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

# As in the rules: the one of the environment that is active.
PYTHON = "python"
# Below those that Linux gives to outgoing connections.
PORTS = range(10_000, 30_000)


class LaunchError(RuntimeError):
    """A training that cannot be started as it is asked for."""


def local_command(program: Sequence[str], gpus: int) -> list[str]:
    """What starts a program and its arguments on this machine, in a process a GPU.

    A program in one process, on a GPU or the CPU, is started as it is.
    """
    if gpus < 2:
        return _leased([PYTHON, *program], gpus)
    alone = ["--num_machines", "1", "--main_process_port", "0"]
    return _leased(_accelerate(program, gpus, *alone), gpus)


def step_command(program: Sequence[str], gpus: int, machines: int) -> list[str]:
    """What starts, from within a SLURM job, `task_command` once on each of its machines.

    Args:
        program: a script, or `-m` and a module, and its arguments.
        gpus: of all machines together.
        machines: SLURM's nodes.

    Raises:
        LaunchError: the GPUs cannot be shared out evenly.
    """
    if gpus % machines or gpus == 0:
        raise LaunchError(
            f"{gpus} GPUs on {machines} machines: give each machine as many, so that gpu is a "
            "multiple of nodes"
        )
    step = ["srun", "--nodes", str(machines), "--ntasks", str(machines), "--ntasks-per-node", "1"]
    # One that fails ends all, which would wait for it. All cores of the job are the task's.
    step += ["--gpus-per-node", str(gpus // machines), "--kill-on-bad-exit=1", "--cpu-bind=none"]
    own = ["--gpus", str(gpus), "--machines", str(machines), "--task", "--"]
    return [*step, PYTHON, "-m", "etaflow.launch", *own, *program]


def task_command(
    program: Sequence[str],
    gpus: int,
    machines: int,
    hosts: Sequence[str],
    environ: Mapping[str, str],
) -> list[str]:
    """What starts one machine's part of the processes, in a task of `step_command`.

    Args:
        program: a script, or `-m` and a module, and its arguments.
        gpus: of all machines together.
        machines: how many.
        hosts: the names of the machines of the job, the first of which the others connect to.
        environ: with SLURM's variables.

    Raises:
        LaunchError: there are not as many machines.
    """
    if len(hosts) != machines:
        raise LaunchError(f"{machines} machines were asked for; the job has {', '.join(hosts)}")
    port = PORTS[int(environ["SLURM_JOB_ID"]) % len(PORTS)]
    place = ["--num_machines", str(machines), "--machine_rank", environ["SLURM_NODEID"]]
    place += ["--main_process_ip", hosts[0], "--main_process_port", str(port)]
    return _leased(_accelerate(program, gpus, *place), gpus // machines)


def _leased(command: list[str], gpus: int) -> list[str]:
    return [PYTHON, "-m", "etaflow.lease", str(gpus), *command] if gpus else command


def _accelerate(program: Sequence[str], gpus: int, *place: str) -> list[str]:
    launcher = [PYTHON, "-m", "accelerate.commands.launch"]
    # Precision is the training's own part. All that is said here is not taken from a user's file.
    fixed = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launcher, "--multi_gpu", "--num_processes", str(gpus), *place, *fixed, *program]


def hosts_of_job(environ: Mapping[str, str]) -> list[str]:
    """The names of the machines of a SLURM job, in the order of its nodes."""
    names = ["scontrol", "show", "hostnames", environ["SLURM_JOB_NODELIST"]]
    return subprocess.run(names, check=True, capture_output=True, text=True).stdout.split()


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The command that the arguments of this program ask for.

    Raises:
        LaunchError: numbers below zero, several machines outside of a SLURM job or not as many as
            it has, or GPUs that they cannot share evenly.
    """
    parser = argparse.ArgumentParser(prog="python -m etaflow.launch", description=__doc__)
    parser.add_argument("--gpus", type=int, required=True, help="of all machines together")
    parser.add_argument("--machines", type=int, default=1, help="nodes of the SLURM job")
    parser.add_argument("--task", action="store_true", help="this is one of a task a machine")
    parser.add_argument("program", nargs="+", help="after --: a script or -m MODULE, and arguments")
    given = parser.parse_args(arguments)
    if given.gpus < 0 or given.machines < 1:
        raise LaunchError(
            f"{given.gpus} GPUs on {given.machines} machines: gpu has to be 0 or more, and nodes 1 "
            "or more"
        )
    if given.machines == 1:
        return local_command(given.program, given.gpus)
    if "SLURM_JOB_ID" not in environ:
        raise LaunchError(
            f"{given.machines} machines are started by SLURM, and this is no SLURM job: "
            "use profiles/slurm, or one machine"
        )
    if not given.task:
        return step_command(given.program, given.gpus, given.machines)
    hosts = hosts_of_job(environ)
    return task_command(given.program, given.gpus, given.machines, hosts, environ)


if __name__ == "__main__":
    try:
        found = command(sys.argv[1:], os.environ)
    except LaunchError as error:
        sys.exit(f"etaflow.launch: {error}")
    os.execvp(found[0], found)

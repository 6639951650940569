"""A SLURM cluster of one machine: its daemons, and what it knows of jobs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Job steps do not pass SLURM_CONF on, so the configuration must lie here.
CONFIG = Path("/etc/slurm/slurm.conf")
MARK = "# Written by the tests of etaflow, for the time that they run."
NODES = ("node1", "node2")
HOSTS = Path("/etc/hosts")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


def why_not() -> str:
    """Why no cluster can be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "the daemons of SLURM need root"
    if CONFIG.exists() and MARK not in CONFIG.read_text():
        return f"this machine belongs to a cluster already ({CONFIG})"
    return ""


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Look again and again; fail if it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


class Cluster:
    """munged, slurmctld and two slurmd: nodes with a GPU each, as they say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.hosts = HOSTS.read_text()
        folder.mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:1"
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text(f"""{MARK}
ClusterName=etaflow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={_free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
# A job that takes more memory than it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
# Jobs that ended are remembered for the tests to ask about.
MinJobAge=7200
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,sched_min_interval=0
NodeName={NODES[0]} {node} Port={_free_port()}
NodeName={NODES[1]} {node} Port={_free_port()}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=2-00:00:00
PartitionName=gpu Nodes=ALL MaxTime=2-00:00:00
""")
        (CONFIG.parent / "gres.conf").write_text("Name=gpu File=/dev/null\n")

    def start(self) -> None:
        """Start what is not running, and wait until the nodes take jobs."""
        # Programs on one node look for the other by its name.
        HOSTS.write_text(f"{self.hosts.rstrip()}\n127.0.0.1 {' '.join(NODES)}\n")
        if subprocess.run(["munge", "-n"], capture_output=True).returncode:
            for place in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
                Path(place).mkdir(exist_ok=True)
                shutil.chown(place, "munge", "munge")
            self._daemon("runuser", "-u", "munge", "--", "munged", "--foreground")
            munge = ["munge", "-n"]
            ready = lambda: subprocess.run(munge, capture_output=True).returncode == 0  # noqa: E731
            wait_until(ready, "munged answers")
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        idle = lambda: ask("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D") == "2"  # noqa: E731
        wait_until(lambda: idle() or self._ended(), "the nodes are idle")
        assert not self._ended(), f"a daemon of SLURM has ended: see {self.folder}"

    def _ended(self) -> bool:
        return any(daemon.poll() is not None for daemon in self.daemons)

    def _daemon(self, *command: str) -> None:
        log = (self.folder / f"{len(self.daemons)}.log").open("wb")
        self.daemons.append(
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        )

    def stop(self) -> None:
        """End the jobs, then the daemons, in the reverse order of their start."""
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        wait_until(lambda: not running(), "no job is left", 30)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        HOSTS.write_text(self.hosts)
        CONFIG.unlink()
        (CONFIG.parent / "gres.conf").unlink()


def ask(*command: str) -> str:
    """What a command of SLURM says; empty where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def running() -> list[str]:
    """The jobs that wait or run."""
    return ask("squeue", "-h", "-o", "%i").split()


def jobs() -> list[dict[str, str]]:
    """Every job that SLURM remembers, oldest first: what `scontrol show job` says of it."""
    said = ask("scontrol", "show", "job", "--oneliner")
    found = [dict(re.findall(r"(\w+(?:[:/]\w+)*)=(\S*)", line)) for line in said.splitlines()]
    return sorted((job for job in found if "JobId" in job), key=lambda job: int(job["JobId"]))

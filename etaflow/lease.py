"""GPUs of one machine, each leased to one job at a time.

`python -m etaflow.lease GPUS COMMAND …` waits until so many devices are free, lets the command see
these alone (CUDA_VISIBLE_DEVICES), and becomes the command. A lease is a lock on a file that the
command keeps open: it ends when the command does, however that comes about.
"""

import fcntl
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from etaflow.device import DeviceError, visibility

# The same for all users and all values of TMPDIR: they share the devices.
LEASES = Path("/tmp/etaflow-gpus")


def _installed() -> list[str]:
    """The UUIDs of the machine's devices in the order of their numbers; none without a driver."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split()


def visible_devices() -> dict[str, str]:
    """The devices that this process may use: what CUDA calls them, and the UUID, where known.

    An inherited CUDA_VISIBLE_DEVICES (of a scheduler or a user) says which, by number or UUID; like
    CUDA, this stops at the first -1. Without it, these are all of the machine, by UUID.
    """
    installed = _installed()
    inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if inherited is None:
        return {uuid: uuid for uuid in installed}
    names = takewhile(lambda name: name not in ("", "-1"), inherited.replace(" ", "").split(","))
    return {name: _full_name(name, installed) for name in names}


def _full_name(name: str, installed: list[str]) -> str:
    """The UUID of a number, or of the beginning of a UUID; other names stay."""
    if name.isdecimal():
        return installed[int(name)] if int(name) < len(installed) else name
    found = [uuid for uuid in installed if uuid.startswith(name)]
    return found[0] if len(found) == 1 else name


def _open_lock(path: Path) -> int:
    """The file of a device, which all users may read; it is made if it is not there."""
    # A user's umask would close it to the others.
    umask = os.umask(0)
    try:
        LEASES.mkdir(0o1777, exist_ok=True)
        with suppress(OSError):
            LEASES.chmod(0o1777)
        # Other users' files are opened for reading, which is enough for a lock. They are never
        # removed: two processes could then each hold a lock on a file of this name.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    finally:
        os.umask(umask)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _lock(device: str) -> int | None:
    """An open, locked file that stands for a device; None if another process has it."""
    try:
        file = _open_lock(LEASES / f"{device.replace('/', '-')}.lock")
    except OSError as error:
        raise DeviceError(
            f"no GPU can be leased: {error}. {LEASES} has to be a folder that all users may write "
            "to, and its files plain ones that all may read; if it is not, remove it"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def try_to_lease(devices: dict[str, str], gpus: int) -> dict[str, int] | None:
    """So many of the devices, each with its locked file; None, none locked, if fewer are free."""
    taken: dict[str, int] = {}
    for name, device in devices.items():
        if len(taken) < gpus and (file := _lock(device)) is not None:
            taken[name] = file
    if len(taken) == gpus:
        return taken
    # Two jobs that each kept a part would wait for one another.
    for file in taken.values():
        os.close(file)
    return None


def lease(gpus: int) -> dict[str, int]:
    """Wait for so many devices that no other job has leased.

    Returns:
        What CUDA calls each, and the open file that holds its lease until it is closed, here and in
        every process that inherited it.

    Raises:
        DeviceError: there are not so many devices, or their locks cannot be opened.
    """
    devices = visible_devices()
    if len(devices) < gpus:
        raise DeviceError(
            f"this job was given {gpus} GPU(s) but sees {len(devices) or 'none'} ({visibility()}). "
            "Check `nvidia-smi` and how many GPUs the profile gives to jobs, or set `gpu: 0` there "
            "to run on the CPU."
        )
    waiting = False
    while (leased := try_to_lease(devices, gpus)) is None:
        if not waiting:
            print(
                f"waiting for {gpus} of the {len(devices)} GPU(s) that this job sees "
                f"({visibility()}): other jobs have leased them (locks in {LEASES})",
                file=sys.stderr,
                flush=True,
            )
        waiting = True
        time.sleep(random.uniform(0.5, 1.5))
    return leased


def main(arguments: list[str]) -> None:
    """Lease, and become the command."""
    if len(arguments) < 2 or not arguments[0].isdecimal():
        given = shlex.join(arguments) or "nothing"
        sys.exit(
            "error: etaflow.lease takes a number of GPUs, 0 or more, and a command; it was given "
            f"{given}"
        )
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C while it waits ends it without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gpus, command = int(arguments[0]), arguments[1:]
    if gpus:
        try:
            leased = lease(gpus)
        except DeviceError as error:
            sys.exit(f"error: {error}")
        for file in leased.values():
            os.set_inheritable(file, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(leased)
        # Numbers are those of nvidia-smi, also on a machine of several models.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""GPUs are leased to one job at a time. The devices are simulated, with names of their own."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from etaflow.device import DeviceError
from etaflow.lease import LEASES, lease, try_to_lease, visible_devices

SAY_AND_WAIT = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); input()"


@pytest.fixture
def devices() -> Iterator[list[str]]:
    """Three devices of this test alone."""
    test = uuid.uuid4().hex[:8]
    yield [f"GPU-{test}-{number}" for number in range(3)]
    for lock in LEASES.glob(f"GPU-{test}-*.lock"):
        lock.unlink()


@pytest.fixture(autouse=True)
def machine(devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose `nvidia-smi` lists them."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(devices) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def job(gpus: int) -> subprocess.Popen[str]:
    """A job that says which devices it sees, and runs until it is spoken to."""
    return subprocess.Popen(
        [sys.executable, "-m", "etaflow.lease", str(gpus), sys.executable, "-c", SAY_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def shown(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().strip().split(",")


def warned(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def end(*jobs: subprocess.Popen[str]) -> None:
    for process in jobs:
        process.communicate("\n")
        assert process.returncode == 0


def test_jobs_side_by_side_get_different_devices(devices: list[str]) -> None:
    jobs = [job(1) for _ in range(3)]
    given = [shown(process) for process in jobs]
    assert sorted(given) == [[device] for device in devices]
    end(*jobs)


@pytest.mark.parametrize("killed", [True, False])
def test_a_lease_ends_with_its_job_also_where_that_is_killed(
    devices: list[str], killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices[1])
    first = job(1)
    assert shown(first) == [devices[1]]
    second = job(1)
    assert (
        f"waiting for 1 of the 1 GPU(s) that this job sees (CUDA_VISIBLE_DEVICES={devices[1]!r})"
        in (warned(second))
    )
    if killed:
        first.kill()
        first.wait()
    else:
        end(first)
    assert shown(second) == [devices[1]]
    end(second)


def test_a_job_of_several_takes_all_or_none(devices: list[str]) -> None:
    single = job(1)
    (taken,) = shown(single)
    rest = [device for device in devices if device != taken]
    whole = job(3)
    assert "waiting for 3 of the 3" in warned(whole)
    pair = job(2)  # what `whole` waits for is not kept from others
    assert shown(pair) == rest
    end(single, pair)
    assert shown(whole) == devices
    end(whole)


def test_processes_of_a_job_keep_its_lease(devices: list[str]) -> None:
    leased = try_to_lease({devices[0]: devices[0]}, 1)
    assert leased is not None
    assert try_to_lease({devices[0]: devices[0]}, 1) is None
    os.close(leased[devices[0]])
    again = try_to_lease({devices[0]: devices[0]}, 1)
    assert again is not None
    os.close(again[devices[0]])


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ("2,0", {"2": 2, "0": 0}),
        ("1, -1, 0", {"1": 1}),
        ("", {}),
        ("-1", {}),
    ],
)
def test_inherited_devices_are_kept_to_in_their_order(
    devices: list[str], inherited: str, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    found = visible_devices()
    assert list(found.items()) == [(name, devices[number]) for name, number in expected.items()]


def test_a_number_and_a_uuid_are_one_device(
    devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visible_devices() == {device: device for device in devices}
    leased = lease(1)
    assert list(leased) == devices[:1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    other = lease(1)
    assert list(other) == ["1"]
    for file in [*leased.values(), *other.values()]:
        os.close(file)


def test_a_job_that_sees_too_few_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceError, match=r"given 2 GPU\(s\) but sees 1 .*='0'.*set `gpu: 0`"):
        lease(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    process = job(1)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert said.startswith(
        "error: this job was given 1 GPU(s) but sees none (CUDA_VISIBLE_DEVICES=''"
    )
    assert "Traceback" not in said


def test_the_beginning_of_a_uuid_is_the_device(
    devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices[0][:-2])  # of all three
    assert visible_devices() == {devices[0][:-2]: devices[0][:-2]}
    short = "GPU-1"
    monkeypatch.setattr("etaflow.lease._installed", lambda: [f"{short}234", "GPU-5678"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{short},9,MIG-1")
    assert visible_devices() == {short: f"{short}234", "9": "9", "MIG-1": "MIG-1"}


def test_locks_are_open_to_all_users_whatever_the_umask(
    devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etaflow.lease.LEASES", tmp_path / "leases")
    umask = os.umask(0o077)
    try:
        leased = lease(1)
    finally:
        assert os.umask(umask) == 0o077
    os.close(leased[devices[0]])
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "leases" / f"{devices[0]}.lock").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("wrong", ["file", "link"])
def test_locks_that_cannot_be_opened_are_an_error_that_names_them(
    devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    leases = tmp_path / "leases"
    monkeypatch.setattr("etaflow.lease.LEASES", leases)
    if wrong == "file":
        leases.touch()
    else:
        leases.mkdir()
        (leases / f"{devices[0]}.lock").symlink_to(tmp_path / "other")
    with pytest.raises(DeviceError, match=rf"no GPU can be leased: .*{leases}.* remove it"):
        lease(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "it was given nothing"),
        (["-1", "true"], "it was given -1 true"),
        (["1.5", "true"], "it was given 1.5 true"),
        (["1"], "it was given 1"),
        (["0", "/none/such"], "/none/such cannot be run: No such file or directory"),
    ],
)
def test_what_cannot_be_run_is_an_error(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "etaflow.lease", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"{said}\n")


def test_a_job_that_waits_is_interrupted_in_silence(
    devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices[0])
    held = lease(1)
    waiting = job(1)
    assert "waiting for 1" in warned(waiting)
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate()[1] == ""
    assert waiting.returncode == -signal.SIGINT
    os.close(held[devices[0]])


def test_a_machine_without_a_driver_has_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices() == {}


def test_a_job_without_gpus_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    process = job(0)
    assert shown(process) == ["7"]
    end(process)

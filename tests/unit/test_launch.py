"""What starts a training in several processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from etaflow.launch import LaunchError, command, hosts_of_job
from tests.launch_tools import machines, slurm_job

SCRIPT = ["scripts/train_vocoder.py", "a.h5", "--gpus", "4", "--config", '{"steps": 3}']
LAUNCHER = ["python", "-m", "accelerate.commands.launch", "--multi_gpu"]
LEASE = ["python", "-m", "etaflow.lease"]
FIXED = ["--mixed_precision", "no", "--dynamo_backend", "no"]
JOB = {"SLURM_JOB_ID": "4294987", "SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_NODEID": "1"}


@pytest.mark.parametrize(("gpus", "lease"), [("0", []), ("1", [*LEASE, "1"])])
def test_one_process_is_started_as_it_is(gpus: str, lease: list[str]) -> None:
    assert command(["--gpus", gpus, "--", *SCRIPT], {}) == [*lease, "python", *SCRIPT]
    module = ["-m", "tests.training_tools", "folder"]
    assert command(["--gpus", gpus, "--", *module], JOB) == [*lease, "python", *module]


def test_several_gpus_of_one_machine_get_a_process_each() -> None:
    place = ["--num_machines", "1", "--main_process_port", "0"]
    expected = [*LEASE, "4", *LAUNCHER, "--num_processes", "4", *place, *FIXED, *SCRIPT]
    assert command(["--gpus", "4", "--", *SCRIPT], {}) == expected
    assert command(["--gpus", "4", "--machines", "1", "--", *SCRIPT], JOB) == expected


def test_several_machines_are_a_step_of_one_task_each() -> None:
    step = ["srun", "--nodes", "2", "--ntasks", "2", "--ntasks-per-node", "1"]
    step += ["--gpus-per-node", "4", "--kill-on-bad-exit=1", "--cpu-bind=none"]
    own = ["python", "-m", "etaflow.launch", "--gpus", "8", "--machines", "2", "--task", "--"]
    given = ["--gpus", "8", "--machines", "2", "--", *SCRIPT]
    assert command(given, JOB) == [*step, *own, *SCRIPT]


def test_a_task_starts_its_part_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hosts(environ: dict[str, str]) -> list[str]:
        asked.append(environ["SLURM_JOB_NODELIST"])
        return ["gpu07", "gpu08"]

    monkeypatch.setattr("etaflow.launch.hosts_of_job", hosts)
    place = ["--num_machines", "2", "--machine_rank", "1", "--main_process_ip", "gpu07"]
    # 10000 + 4294987 % 20000
    place += ["--main_process_port", "24987"]
    given = ["--gpus", "8", "--machines", "2", "--task", "--", *SCRIPT]
    launcher = [*LEASE, "4", *LAUNCHER, "--num_processes", "8"]
    assert command(given, JOB) == [*launcher, *place, *FIXED, *SCRIPT]
    assert asked == ["gpu[07-08]"]
    with pytest.raises(LaunchError, match="3 machines were asked for; the job has gpu07, gpu08"):
        command(["--gpus", "6", "--machines", "3", "--task", "--", *SCRIPT], JOB)


def test_the_machines_are_those_that_slurm_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = slurm_job(tmp_path / "bin", 1)
    monkeypatch.setenv("PATH", job["PATH"])
    assert hosts_of_job(job) == ["127.0.0.1", "two"]


@pytest.mark.parametrize("gpus", ["0", "1", "3"])
def test_gpus_that_machines_cannot_share_are_an_error(gpus: str) -> None:
    with pytest.raises(LaunchError, match=f"{gpus} GPUs on 2 machines: give each machine as many"):
        command(["--gpus", gpus, "--machines", "2", "--", *SCRIPT], JOB)


@pytest.mark.parametrize(("gpus", "machines"), [("-1", "1"), ("1", "0"), ("-2", "-2")])
def test_numbers_that_cannot_be_are_an_error(gpus: str, machines: str) -> None:
    with pytest.raises(LaunchError, match=f"{gpus} GPUs on {machines} machines: gpu has to be 0"):
        command(["--gpus", gpus, "--machines", machines, "--", *SCRIPT], JOB)


def test_several_machines_without_slurm_are_an_error() -> None:
    done = subprocess.run(machines(2, *SCRIPT), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("etaflow.launch: 2 machines are started by SLURM")


def test_the_program_takes_the_place_of_the_launcher() -> None:
    program = [sys.executable, "-m", "etaflow.launch", "--gpus", "0", "--", "-c"]
    done = subprocess.run(
        [*program, "import sys; print(sys.argv); sys.exit(3)", "--", "--gpus"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "['-c', '--', '--gpus']\n")

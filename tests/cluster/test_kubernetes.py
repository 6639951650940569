"""Jobs in pods, on a cluster that is a program of the tests (tests/cluster/kubectl.py)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow_tools import ROOT, small_config

PODS = Path("profiles/kubernetes/pods.py")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Look again and again; fail if it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def live(place: Path) -> list[dict[str, Any]]:
    """The pods that there are."""
    return [json.loads(file.read_text()) for file in (place / "cluster").glob("*.pod.json")]


def phases(place: Path) -> list[str]:
    return [pod["status"]["phase"] for pod in live(place)]


def created(place: Path) -> list[dict[str, Any]]:
    """The manifests of all pods that there ever were, oldest first."""
    files = sorted((place / "cluster" / "created").glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def asked(pod: dict[str, Any]) -> dict[str, str]:
    return pod["spec"]["containers"][0]["resources"]["limits"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A clone with an edited template, where `kubectl` and the pods' Python are ours."""
    place = Path(os.path.realpath(tmp_path))
    shutil.copytree(ROOT / "profiles", place / "profiles")
    (place / "etaflow").symlink_to(ROOT / "etaflow")
    template = place / PODS.with_name("pod.yaml")
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("mountPath: /data", f"mountPath: {place}"), encoding="utf-8")
    for folder in ("bin", "cluster"):
        (place / folder).mkdir()
    for name, source in (("kubectl", "kubectl"), ("python", "python_without_gpu")):
        program = place / "bin" / name
        text = (ROOT / "tests" / "cluster" / f"{source}.py").read_text()
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
    yield place
    for pod in live(place):
        if pod["status"]["phase"] == "Running":
            os.killpg(pod["status"]["session"], signal.SIGKILL)


def environment(place: Path) -> dict[str, str]:
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return dict(os.environ, PATH=path, CLUSTER=str(place / "cluster"), RECORDS=str(place))


def pods(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call pods.py as Snakemake does."""
    return subprocess.run(
        ["python", str(PODS), *arguments],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
    )


def job_script(place: Path, commands: str, **properties: Any) -> str:
    """A job script as Snakemake writes one; its name."""
    job = {"type": "single", "rule": "fit_eta", "local": False, "threads": 1, "jobid": 7}
    job |= {"params": {"config": 'a "b"\n'}, "resources": {"mem_mb": 8000, "runtime": 30}}
    line = json.dumps(job | properties)
    (place / "job.sh").write_text(f"#!/bin/sh\n# properties = {line}\n{commands}\n")
    return "job.sh"


def submitted(place: Path, commands: str = "exit 0", **properties: Any) -> str:
    done = pods(place, "submit", job_script(place, commands, **properties))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def manifest(place: Path, **parts: Any) -> dict[str, Any]:
    """The template, filled as it must be for the job of job_script, but for the name."""
    amounts = {"cpu": "1", "memory": "8000M"} | parts.pop("amounts", {})
    command = parts.pop("command", "cd / &&\nexit 0\n")
    run = (place / ".snakemake" / "kubernetes.run").read_text()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "default",
            "labels": {"etaflow/rule": parts.pop("rule", "fit_eta"), "etaflow/run": run},
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000},
            "activeDeadlineSeconds": 1800,
            "containers": [
                {
                    "name": "job",
                    "image": "registry.example.org/etaflow:0.1.0",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "project", "mountPath": str(place)},
                        {"name": "shared-memory", "mountPath": "/dev/shm"},
                    ],
                    "resources": {"requests": amounts, "limits": amounts},
                    "workingDir": str(place),
                    "env": [{"name": "PYTHONPATH", "value": str(place)}],
                    "command": ["/bin/sh", "-c", command],
                }
            ],
            "volumes": [
                {"name": "project", "persistentVolumeClaim": {"claimName": "etaflow"}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            ],
            **parts,
        },
    }


def test_the_pod_of_a_job(place: Path) -> None:
    name = submitted(place, "cd / &&\nexit 0")
    (pod,) = created(place)
    assert pod["metadata"].pop("name") == name
    assert name.startswith("fit-eta-")
    assert pod == manifest(place)


def test_the_pod_of_a_job_on_gpus(place: Path) -> None:
    resources = {"mem_mb": 16000, "runtime": 2880, "gpu": 2, "gpu_model": "NVIDIA-L4"}
    rule = "dump_features__Mini_Voices__" + "wavlm-large." * 4
    given = {"rule": rule, "threads": 8, "resources": resources}
    name = submitted(place, "cd / && python -m snakemake --attempt 1", **given)
    (pod,) = created(place)
    assert pod["metadata"].pop("name") == name
    assert name.startswith("dump-features-mini-voices-wavlm-large-")
    assert pod == manifest(
        place,
        # Which Snakemake does not pass on itself.
        command="cd / && python -m snakemake --resources gpu=2 --attempt 1\n",
        rule="dump_features__Mini_Voices__wavlm-large.wavlm-large.wavlm-large",
        amounts={"cpu": "8", "memory": "16000M", "nvidia.com/gpu": "2"},
        activeDeadlineSeconds=172800,
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        nodeSelector={"nvidia.com/gpu.product": "NVIDIA-L4"},
    )


def test_a_model_that_is_a_number_is_a_label(place: Path) -> None:
    submitted(place, resources={"mem_mb": 8000, "gpu": 1, "gpu_model": 1080})
    (pod,) = created(place)
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "1080"}


def test_without_gpus_a_pod_asks_for_none(place: Path) -> None:
    resources = {"mem_mb": 8000, "runtime": 30, "gpu": 0, "gpu_model": "NVIDIA-L4"}
    submitted(place, "python -m snakemake --attempt 1", resources=resources)
    (pod,) = created(place)
    del pod["metadata"]["name"]
    command = "python -m snakemake --resources gpu=0 --attempt 1\n"
    assert pod == manifest(place, command=command)


def test_a_working_directory_that_pods_would_not_see_is_an_error(place: Path) -> None:
    template = place / PODS.with_name("pod.yaml")
    template.write_text(template.read_text().replace(f"mountPath: {place}", "mountPath: /data"))
    done = pods(place, "submit", job_script(place, "exit 0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: pods would not see the working directory {place}: {template} mounts only /data, "
        "/dev/shm. Mount the claim that the project lies on at the same path.\n"
    )
    assert created(place) == []


def test_a_pod_that_the_cluster_refuses_is_an_error(place: Path) -> None:
    (place / "cluster" / "down").touch()
    done = pods(place, "submit", job_script(place, "exit 0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no pod was created: Unable to connect to the server: dial tcp: i/o timeout\n"
    )


def ended(place: Path, phase: str) -> None:
    wait_until(lambda: phases(place) == [phase], f"the pod has {phase}")


def state(place: Path, name: str) -> tuple[str, str]:
    done = pods(place, "status", name)
    assert done.returncode == 0
    return done.stdout, done.stderr


def test_what_becomes_of_a_pod(place: Path) -> None:
    name = submitted(place, "while [ ! -e go ]; do sleep 0.1; done")
    assert state(place, name) == ("running\n", "")
    # A moment without an answer is no failure.
    (place / "cluster" / "down").touch()
    assert state(place, name) == (
        "running\n",
        f"nothing is known of pod {name} now: "
        "Unable to connect to the server: dial tcp: i/o timeout\n",
    )
    (place / "cluster" / "down").unlink()
    (place / "go").touch()
    ended(place, "Succeeded")
    assert state(place, name) == ("success\n", "")


def test_a_pod_that_fails(place: Path) -> None:
    name = submitted(place, "exit 3")
    ended(place, "Failed")
    assert state(place, name) == ("failed\n", f"pod {name} failed: Error\n")


def test_a_pod_that_is_out_of_memory(place: Path) -> None:
    (place / "cluster" / "out-of-memory").write_text("fit_eta")
    name = submitted(place)
    ended(place, "Failed")
    assert state(place, name) == ("failed\n", f"pod {name} failed: OOMKilled\n")


def test_a_pod_that_is_evicted_and_one_that_is_gone(place: Path) -> None:
    name = submitted(place)
    ended(place, "Succeeded")
    file = place / "cluster" / f"{name}.pod.json"
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": status}))
    assert state(place, name) == (
        "failed\n",
        f"pod {name} failed: Evicted, The node was low on memory.\n",
    )
    file.unlink()
    assert state(place, name) == (
        "failed\n",
        f"pod {name} is gone: evicted, deleted, or lost with its node\n",
    )


def watched(place: Path) -> subprocess.Popen[str]:
    """The guard, called by a process that stands for Snakemake."""
    process = subprocess.Popen(
        ["sh", "-c", "profiles/kubernetes/guard & echo $!; wait"],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.guard = int(process.stdout.readline())  # type: ignore[attr-defined]
    # The guard is ready.
    assert process.stdout.readline() == "\n"
    return process


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_the_guard_leaves_no_pod_when_snakemake_ends(place: Path, end: str) -> None:
    submitted(place, "sleep 1000")
    wait_until(lambda: phases(place) == ["Running"], "a pod of an earlier run")
    process = watched(place)
    assert phases(place) == []
    names = [submitted(place, commands) for commands in ("sleep 1000", "exit 0", "exit 1")]
    other = live(place)[0] | {"status": {"phase": "Succeeded"}}
    other["metadata"] |= {"name": "other", "labels": {"etaflow/run": "other"}}
    (place / "cluster" / "other.pod.json").write_text(json.dumps(other))
    wait_until(
        lambda: sorted(phases(place)) == ["Failed", "Running", "Succeeded", "Succeeded"], "pods"
    )
    if end == "killed":
        process.kill()
    else:
        # Ctrl-C reaches it and changes nothing.
        os.kill(process.guard, signal.SIGINT)  # type: ignore[attr-defined]
        assert len(live(place)) == 4
        os.kill(process.guard, signal.SIGTERM)  # type: ignore[attr-defined]
    process.wait()
    # The one that failed can still be described; what belongs to another run is left alone.
    wait_until(lambda: len(live(place)) == 2, "the pods are gone")
    assert {pod["metadata"]["name"] for pod in live(place)} == {names[2], "other"}


def start(place: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Snakemake with the profile, which asks more often than on a shared cluster."""
    config = small_config()
    for section in ("sweep", "probe", "conversion"):
        del config[section]
    config["corpora"]["mini"] |= {"speakers": 4, "shards": 2}
    config["corpora"]["mini"]["split"]["test_fraction"] = 0.5
    (place / "test.yaml").write_text(yaml.safe_dump(config))
    return subprocess.Popen(
        [
            *("snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "test.yaml"),
            *("--workflow-profile", str(place / "profiles" / "kubernetes"), "--local-cores", "2"),
            *("--latency-wait", "5", "--seconds-between-status-checks", "1", *arguments),
        ],
        cwd=place,
        env=environment(place),
        stdout=(place / "said.txt").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def scripts(place: Path) -> list[dict[str, Any]]:
    file = place / "scripts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def alive(session: int) -> bool:
    """Whether any process of a session is left, but for those that nobody has waited for."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True
    )
    return any(not line.startswith("Z") for line in listed.stdout.split())


@pytest.mark.slow
def test_the_workflow_in_pods(place: Path) -> None:
    """Cancelled, then completed; one pod is killed for its memory."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("a network namespace, without network, needs root")
    # The line of the profile for no GPUs.
    process = start(place, "manifests", "eta", "--resources", "gpu=0")
    begun = lambda: any(one["script"] == "dump_features" for one in scripts(place))  # noqa: E731
    wait_until(lambda: begun() or process.poll() is not None, "features are made", 300)
    sessions = [pod["status"].get("session") for pod in live(place)]
    assert "Running" in phases(place), (place / "said.txt").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    assert live(place) == []
    for session in filter(None, sessions):
        wait_until(lambda of=session: not alive(of), "the processes of the pod have ended", 10)
    assert {asked(pod).get("nvidia.com/gpu") for pod in created(place)} == {None}
    assert {(one["gpus"], one["devices"]) for one in scripts(place)} == {(0, None)}
    before = len(scripts(place)), len(created(place))

    (place / "cluster" / "out-of-memory").write_text("fit_pca")
    process = start(place, "manifests", "eta")
    assert process.wait() == 0, (place / "said.txt").read_text()
    assert (place / "results" / "small" / "eta" / "mini" / "eta.safetensors").exists()

    # GPUs are asked for by the pods of their rules, and seen in these alone.
    on_gpus = {"dump_features", "embed_speakers"}
    done = {pod["metadata"]["name"]: pod for pod in created(place)[before[1] :]}
    rules = {name: pod["metadata"]["labels"]["etaflow/rule"] for name, pod in done.items()}
    assert {rule.split("__")[0] for rule in rules.values()} == {*on_gpus, "fit_pca", "fit_eta"}
    for name, pod in done.items():
        gpus = "1" if rules[name].split("__")[0] in on_gpus else None
        assert asked(pod).get("nvidia.com/gpu") == gpus, name
    for one in scripts(place)[before[0] :]:
        # Snakemake itself runs pods.py, and what gathers the shards.
        gpus = int(one["script"] in on_gpus)
        assert (one["gpus"], one["devices"]) == (gpus, "0" if gpus else None), one

    # The pod that was killed is kept to be looked at; the next had twice the memory and time.
    (failed,) = live(place)
    assert failed["status"]["phase"] == "Failed"
    tries = [pod for name, pod in done.items() if rules[name] == "fit_pca"]
    assert len(tries) == 2
    assert tries[0]["metadata"]["name"] == failed["metadata"]["name"]
    first, second = (int(asked(pod)["memory"].removesuffix("M")) for pod in tries)
    # 2 GB, and 8 MB for each of the embeddings.
    assert (first, second) == (2001, 4002)
    assert [pod["spec"]["activeDeadlineSeconds"] for pod in tries] == [660, 1320]

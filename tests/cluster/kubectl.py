"""Stands for kubectl and a cluster in tests: pods are processes here, kept in the folder $CLUSTER.

A manifest that a cluster would not take is refused. A file `down` there makes every call fail; a
file `out-of-memory` names the rule of which the next pod is killed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLUSTER = Path(os.environ["CLUSTER"])
MARKS = {"--ignore-not-found"}
METADATA = {"name", "namespace", "labels"}
SPEC = {
    *("restartPolicy", "terminationGracePeriodSeconds", "automountServiceAccountToken"),
    *("securityContext", "containers", "volumes", "activeDeadlineSeconds", "tolerations"),
    "nodeSelector",
}
CONTAINER = {"name", "image", "securityContext", "volumeMounts", "resources", "workingDir", "env"}
QUANTITY = {"cpu": r"\d+", "memory": r"\d+M", "nvidia.com/gpu": r"[1-9]"}


def validate(pod: dict[str, Any], namespace: str) -> None:
    assert set(pod) == {"apiVersion", "kind", "metadata", "spec"}
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    metadata, spec = pod["metadata"], pod["spec"]
    assert set(metadata) == METADATA
    assert metadata["namespace"] == namespace
    assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", metadata["name"]), metadata["name"]
    for key, value in metadata["labels"].items():
        assert re.fullmatch(r"([a-z0-9.-]+/)?[\w.-]{1,63}", key), key
        assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", value), value
    assert set(spec) <= SPEC, set(spec) - SPEC
    assert spec["restartPolicy"] == "Never"
    assert type(spec.get("activeDeadlineSeconds", 1)) is int
    (container,) = spec["containers"]
    assert set(container) == CONTAINER | {"command"}
    assert all(type(word) is str for word in container["command"])
    assert all(set(variable) == {"name", "value"} for variable in container["env"])
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["resources"]["requests"] == container["resources"]["limits"]
    for key, amount in container["resources"]["limits"].items():
        assert re.fullmatch(QUANTITY[key], amount), (key, amount)


def pods() -> list[Path]:
    return sorted(CLUSTER.glob("*.pod.json"))


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def set_status(file: Path, **status: Any) -> None:
    """Unless the pod was deleted meanwhile."""
    if file.exists():
        changed = file.with_suffix(".new")
        changed.write_text(json.dumps(read(file) | {"status": status}))
        changed.rename(file)


def create(namespace: str) -> None:
    pod = json.load(sys.stdin)
    validate(pod, namespace)
    file = CLUSTER / f"{pod['metadata']['name']}.pod.json"
    assert not file.exists()
    file.write_text(json.dumps(pod | {"status": {"phase": "Pending"}}))
    (CLUSTER / "created").mkdir(exist_ok=True)
    (CLUSTER / "created" / f"{time.time_ns()}.json").write_text(json.dumps(pod))
    log = (CLUSTER / f"{pod['metadata']['name']}.log").open("wb")
    subprocess.Popen(
        [sys.executable, __file__, "run", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    print(f"pod/{pod['metadata']['name']} created")


def run(file: Path) -> None:
    """What a node does with a pod; in a session of its own."""
    pod = read(file)
    container = pod["spec"]["containers"][0]
    environment = dict(os.environ)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if gpus := int(container["resources"]["limits"].get("nvidia.com/gpu", 0)):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))
    environment |= {each["name"]: each["value"] for each in container["env"]}
    set_status(file, phase="Running", session=os.getpid())
    doomed = CLUSTER / "out-of-memory"
    if doomed.exists() and doomed.read_text() == pod["metadata"]["labels"]["etaflow/rule"]:
        doomed.unlink()
        ended = {"exitCode": 137, "reason": "OOMKilled"}
    else:
        command, folder = container["command"], container["workingDir"]
        code = subprocess.run(command, cwd=folder, env=environment).returncode
        ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
    phase = "Failed" if ended["exitCode"] else "Succeeded"
    set_status(file, phase=phase, containerStatuses=[{"state": {"terminated": ended}}])


def get(name: str) -> None:
    file = CLUSTER / f"{name}.pod.json"
    if file.exists():
        print(file.read_text())


def delete(selector: str, field_selector: str | None) -> None:
    assert field_selector in (None, "status.phase!=Failed")
    key, value = selector.split("=")
    for file in pods():
        pod = read(file)
        ours = pod["metadata"]["labels"][key] == value
        if ours and not (field_selector and pod["status"]["phase"] == "Failed"):
            while pod["status"]["phase"] == "Pending":
                time.sleep(0.1)
                pod = read(file)
            if pod["status"]["phase"] == "Running":
                os.killpg(pod["status"]["session"], signal.SIGKILL)
            file.unlink()
            print(f"pod {pod['metadata']['name']} deleted")


def main(arguments: list[str]) -> None:
    if arguments[0] == "run":
        run(Path(arguments[1]))
        return
    with (CLUSTER / "calls").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    if (CLUSTER / "down").exists():
        sys.exit("Unable to connect to the server: dial tcp: i/o timeout")
    options, plain, words = {}, [], iter(arguments)
    for word in words:
        if word.startswith("--"):
            options[word] = "" if word in MARKS else next(words)
        else:
            plain.append(word)
    if plain == ["create"]:
        assert options.pop("--filename") == "-"
        create(options["--namespace"])
    elif plain[:2] == ["get", "pod"]:
        assert (options["--output"], options["--ignore-not-found"]) == ("json", "")
        get(plain[2])
    else:
        assert plain == ["delete", "pods"], plain
        delete(options["--selector"], options.get("--field-selector"))


if __name__ == "__main__":
    main(sys.argv[1:])

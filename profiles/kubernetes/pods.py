"""Jobs in pods. Snakemake calls it, as the profile says, in the working directory.

`submit JOBSCRIPT` creates a pod from pod.yaml and prints its name; `status POD` prints running,
success or failed; `guard` runs as long as Snakemake does and leaves no pod behind.
"""

import copy
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(os.path.abspath(__file__)).parent
TEMPLATE = HERE / "pod.yaml"
PROJECT = HERE.parents[1]


class PodError(Exception):
    """A job that no pod can be made for."""


def kubectl(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl in the namespace of the template; it may fail."""
    namespace = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))["metadata"]["namespace"]
    command = ["kubectl", "--namespace", namespace, "--request-timeout", "30s", *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("error: there is no kubectl here; install it where Snakemake runs")


def this_run() -> str:
    """What the pods of this working directory, and no others, are labelled with."""
    file = Path(".snakemake/kubernetes.run")
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(secrets.token_hex(8))
    return file.read_text()


def filled(template: dict[str, Any], script: str, folder: str, run: str) -> dict[str, Any]:
    """The pod of a job script that Snakemake wrote.

    Args:
        template: a Pod, of which the first container runs the job.
        script: a line `#!/bin/sh`, a line `# properties = ` with JSON, and commands.
        folder: the working directory.
        run: what all pods of this run are labelled with.

    Raises:
        PodError: pods made from the template would not see the working directory.
    """
    _, properties, commands = script.split("\n", 2)
    job = json.loads(properties.removeprefix("# properties = "))
    rule, asked = job.get("rule", job["type"]), job["resources"]
    gpus = int(asked.get("gpu", 0))

    pod = copy.deepcopy(template)
    metadata, spec = pod["metadata"], pod["spec"]
    container = spec["containers"][0]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    if not any(Path(folder).is_relative_to(mount) for mount in mounts):
        raise PodError(
            f"pods would not see the working directory {folder}: {TEMPLATE} mounts only "
            f"{', '.join(mounts)}. Mount the claim that the project lies on at the same path."
        )
    name = re.sub("[^a-z0-9]+", "-", rule.lower()).strip("-")[:50].strip("-")
    metadata["name"] = f"{name}-{secrets.token_hex(4)}"
    metadata["labels"] = metadata.get("labels", {}) | {
        "etaflow/rule": rule[:63].strip("_.-"),
        "etaflow/run": run,
    }
    amounts = {"cpu": str(job["threads"]), "memory": f"{asked['mem_mb']}M"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
        # Nodes with GPUs are often closed to pods that do not ask for them.
        spec.setdefault("tolerations", []).append(
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        )
        if "gpu_model" in asked:
            spec.setdefault("nodeSelector", {})["nvidia.com/gpu.product"] = str(asked["gpu_model"])
    if "gpu" in asked:
        # The limit `gpu=0` of a profile reaches the pod's Snakemake in no other way.
        commands = commands.replace("-m snakemake ", f"-m snakemake --resources gpu={gpus} ", 1)
    if "runtime" in asked:
        spec["activeDeadlineSeconds"] = 60 * asked["runtime"]
    container["resources"] = {"requests": amounts, "limits": amounts}
    container["workingDir"] = folder
    # The code that Snakemake watches is that of the project, not that of the image.
    container.setdefault("env", []).append({"name": "PYTHONPATH", "value": str(PROJECT)})
    # Not the path of the script: a pod's node may not see a new file at once.
    container["command"] = ["/bin/sh", "-c", commands]
    return pod


def submit(script: Path) -> str:
    """Create the pod of a job; its name.

    Raises:
        PodError: the template does not fit, or the cluster does not take the pod.
    """
    template = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    pod = filled(template, script.read_text(encoding="utf-8"), os.getcwd(), this_run())
    done = kubectl("create", "--filename", "-", given=json.dumps(pod))
    if done.returncode:
        raise PodError(f"no pod was created: {done.stderr.strip()}")
    return str(pod["metadata"]["name"])


def state(name: str) -> tuple[str, str]:
    """Of a pod: running, success or failed; and what there is to say of it."""
    done = kubectl("get", "pod", name, "--ignore-not-found", "--output", "json")
    if done.returncode:
        # It is asked again.
        return "running", f"nothing is known of pod {name} now: {done.stderr.strip()}"
    if not done.stdout.strip():
        return "failed", f"pod {name} is gone: evicted, deleted, or lost with its node"
    found = json.loads(done.stdout)["status"]
    if found.get("phase") == "Succeeded":
        return "success", ""
    if found.get("phase") != "Failed":
        return "running", ""
    ends = [each.get("state", {}).get("terminated") for each in found.get("containerStatuses", [])]
    reasons = [found.get("reason"), found.get("message"), *(end["reason"] for end in ends if end)]
    return "failed", f"pod {name} failed: {', '.join(filter(None, reasons))}"


def delete(*selector: str) -> None:
    """Delete pods of this run, and wait until they are gone."""
    run = f"etaflow/run={this_run()}"
    done = kubectl("delete", "pods", "--selector", run, *selector, "--timeout", "60s")
    if done.returncode:
        print(f"the pods with {run} may not all be gone: {done.stderr.strip()}", file=sys.stderr)


def guard() -> None:
    """Delete pods: those of an earlier Snakemake, and when this one ends its own.

    Those that failed are kept until the next start, for `kubectl describe`.
    """
    snakemake = os.getppid()
    # Ctrl-C, or the end of the terminal, reaches this process too. Snakemake ends it by SIGTERM.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    delete()
    # Snakemake waits for a line before it submits.
    print(flush=True)
    while os.getppid() == snakemake and signal.sigtimedwait({signal.SIGTERM}, 1) is None:
        pass
    delete("--field-selector", "status.phase!=Failed")


def main(verb: str, *subject: str) -> None:
    """What Snakemake asks for."""
    if verb == "guard":
        guard()
    elif verb == "status":
        is_now, remark = state(*subject)
        if remark:
            print(remark, file=sys.stderr)
        print(is_now)
    elif verb == "submit":
        try:
            print(submit(Path(*subject)))
        except PodError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])

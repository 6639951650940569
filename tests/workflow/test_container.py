"""The container images: versions, files, and their steps as far as they run without Docker.

What is not tested here: the image is never built, so neither is its base image, nor that a package
index has the lock's packages for it, nor the user and the rights that it sets up.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.environments import PYTHON
from tests.workflow_tools import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """The stages of the Dockerfile by name: what each begins with, and its other instructions."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif word:
            found[list(found)[-1]][1].append((word, rest))
    return found


def instructions(target: str = "workflow") -> list[tuple[str, str]]:
    """All instructions that an image is built by, and their arguments."""
    base, own = stages()[target]
    return [*(instructions(base) if base in stages() else [("FROM", base)]), *own]


def arguments(instruction: str, target: str = "workflow") -> list[str]:
    return [rest for word, rest in instructions(target) if word == instruction]


def assignments(instruction: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments(instruction) for pair in shlex.split(rest))


def steps() -> list[list[str]]:
    """The commands of all RUN instructions."""
    return [shlex.split(step) for rest in arguments("RUN") for step in rest.split("&&")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the image has in /opt/etaflow."""
    folder = tmp_path_factory.mktemp("opt") / "etaflow"
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    left_out = {
        rule.removeprefix("**/") for rule in rules[1:] if rule not in map("!{}".format, kept)
    }
    for source in kept:
        path = ROOT / source
        assert path.exists(), f".dockerignore: {source}"
        if path.is_dir():
            ignored = shutil.ignore_patterns(*left_out)
            shutil.copytree(path, folder / source, ignore=ignored)
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder / source)
    return folder


def test_versions_are_those_of_the_environments_and_the_project() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(rf"python:{re.escape(PYTHON)}-slim-\w+", base)
    labels = assignments("LABEL")
    assert labels["org.opencontainers.image.title"] == PROJECT["name"]
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.description"] == PROJECT["description"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]["text"]


def test_packages_come_from_the_lock_alone() -> None:
    installs = [step for step in steps() if step[:2] == ["pip", "install"]]
    assert [step[-2:] for step in installs] == [
        ["-r", "envs/requirements.txt"],
        ["--editable", "."],
    ]
    assert all("--no-deps" in step for step in installs)
    assert not any(fnmatch(word, "*==*") for step in steps() for word in step)
    # What the lock is copied for comes first, so that it is installed once for many builds.
    words = [word for word, _ in instructions()]
    assert arguments("COPY") == ["envs/requirements.txt envs/requirements.txt", ". ."]
    assert words.index("RUN") < len(words) - 1 - words[::-1].index("COPY")


def test_a_build_without_a_target_makes_the_workflow() -> None:
    assert {name: base for name, (base, _) in stages().items()} == {
        "base": arguments("FROM")[0],
        "serve": "base",
        "workflow": "base",
    }
    assert list(stages())[-1] == "workflow"


def test_the_user_is_not_root_and_may_write_where_it_works() -> None:
    last = [(word, rest) for word, rest in instructions() if word in ("USER", "WORKDIR")][-2:]
    assert last == [("USER", "etaflow"), ("WORKDIR", "/work")]
    assert assignments("ENV")["HOME"] == "/home/etaflow"
    assert ["chmod", "1777", "/home/etaflow"] in steps()
    assert ["install", "--directory", "--owner", "etaflow", "/work"] in steps()


def test_the_server_is_not_root_and_serves_what_is_mounted() -> None:
    words = ("USER", "WORKDIR", "EXPOSE", "CMD")
    last = [(word, rest) for word, rest in instructions("serve") if word in words][-3:]
    assert last == [("USER", "etaflow"), ("WORKDIR", "/home/etaflow"), ("EXPOSE", "8000")]
    (command,) = arguments("ENTRYPOINT", "serve")
    program, serve, *options = json.loads(command)
    assert (program, serve) == ("etaflow", "serve")
    assert options == ["--bundle", "/bundle", "--host", "0.0.0.0", "--port", "8000"]


class Health(BaseHTTPRequestHandler):
    """Answers by the status that its server is told."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/v1/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_server_is_healthy_when_it_says_so() -> None:
    (check,) = arguments("HEALTHCHECK", "serve")
    program, *command = json.loads(check.partition(" CMD ")[2])
    assert program == "python"
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{server.server_address[1]}"
        assert "127.0.0.1:8000" in command[1]
        command[1] = command[1].replace("127.0.0.1:8000", here)
        for status, code in {200: 0, 503: 1}.items():
            Health.status = status
            run = [sys.executable, *command]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stderr
        server.shutdown()


def test_nothing_of_data_or_results_is_sent_to_the_build(image: Path) -> None:
    names = {path.name for path in image.iterdir()}
    assert not names & {"results", "resources", "logs", "benchmarks", ".git", ".venv", ".snakemake"}
    assert not list(image.rglob("__pycache__"))


def test_the_steps_run_where_they_can(image: Path) -> None:
    for step in steps():
        if step[:2] == ["pip", "install"] and "-r" in step:
            # The lock is installed in this Python, so nothing is asked of an index.
            command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index"]
            step = [*command, *(word for word in step[2:] if word != "--no-cache-dir")]
        elif step[0] == "python":
            step = [sys.executable, *step[1:]]
        else:
            continue
        done = subprocess.run(step, cwd=image, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Would install" not in done.stdout


def test_the_image_plans_the_default_run_in_an_empty_folder(image: Path, tmp_path: Path) -> None:
    (command,) = arguments("CMD")
    program, *options = [word.replace("/opt/etaflow", str(image)) for word in json.loads(command)]
    done = subprocess.run(
        [f"{Path(sys.executable).parent}/{program}", *options, "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    jobs = dict(re.findall(r"^(\S+) +(\d+)$", done.stdout, flags=re.M))
    assert (jobs["all"], jobs["train_vocoder"], jobs["train_separator"]) == ("1", "1", "2")
    assert not (tmp_path / "results").exists()

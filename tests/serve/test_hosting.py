"""What `hosting/` has: the unit of systemd, and the Space."""

import ast
import configparser
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from typer.testing import CliRunner

from etaflow.cli import app
from tests.serve_tools import START_SECONDS, end, free_port, full_bundle
from tests.workflow_tools import ROOT

UNIT = ROOT / "hosting" / "etaflow.service"
SPACE = ROOT / "hosting" / "space"


@pytest.fixture
def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return {name: dict(section) for name, section in parser.items()}


def test_the_unit_is_confined(unit: dict[str, dict[str, str]]) -> None:
    expected = {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "IPAddressDeny": "any",
        "IPAddressAllow": "localhost",
        "SystemCallFilter": "@system-service",
        "EnvironmentFile": "/etc/etaflow/keys",
        "KillMode": "mixed",
        "Restart": "on-failure",
        "MemoryMax": "12G",
        "LimitCORE": "0",
    }
    assert {key: unit["Service"][key] for key in expected} == expected
    # PyTorch compiles kernels while it runs.
    assert "MemoryDenyWriteExecute" not in unit["Service"]


def test_the_unit_calls_the_command_with_options_that_it_has(
    unit: dict[str, dict[str, str]],
) -> None:
    program, serve, *options = shlex.split(unit["Service"]["ExecStart"])
    assert (program, serve) == ("/opt/etaflow/.venv/bin/etaflow", "serve")
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--bundle": "/srv/etaflow/bundle",
        "--host": "127.0.0.1",
        "--port": "8000",
        "--config": "/etc/etaflow/serve.yaml",
    }
    told = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(option in told for option in options[::2])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # Where the program is, systemd looks.
    text = UNIT.read_text(encoding="utf-8").replace(
        "/opt/etaflow/.venv/bin/etaflow", sys.executable
    )
    (tmp_path / "etaflow.service").write_text(text, encoding="utf-8")
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(
            ["systemd-analyze", *command, str(tmp_path / "etaflow.service")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_space_says_what_its_image_listens_on() -> None:
    front = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    facts = yaml.safe_load(front)
    assert (facts["sdk"], facts["app_port"], facts["license"]) == ("docker", 7860, "mit")
    image = (SPACE / "Dockerfile").read_text(encoding="utf-8")
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    base = next(line for line in lines if line.startswith("FROM"))
    assert image.splitlines()[0] == base.removesuffix(" AS base")
    assert "EXPOSE 7860\n" in image
    assert image.index("USER etaflow") < image.index('CMD ["python", "app.py"]')
    program = (SPACE / "app.py").read_text(encoding="utf-8")
    texts = {node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)}
    assert {"0.0.0.0", "7860"} <= texts


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space's repository, put together as docs/serve.md says, with a bundle in it."""
    folder = tmp_path_factory.mktemp("spaces") / "space"
    shutil.copytree(SPACE, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "etaflow", folder / "etaflow", ignore=ignored)
    return folder


@contextmanager
def running(space: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    address = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    with (space.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=space,
            env=kept | address | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        end(process)


def test_a_space_without_a_bundle_says_what_to_set(space: Path) -> None:
    with running(space) as (process, _):
        assert process.wait(60) == 1
    assert (space.parent / "log").read_text() == (
        "set the Space's variable ETAFLOW_BUNDLE to the bundle: OWNER/NAME on the Hub\n"
    )


def answer(process: subprocess.Popen[str], method: str, url: str) -> requests.Response:
    """Of a server that starts."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            response = requests.request(method, url, json={}, timeout=30)
            if response.status_code != 503:
                return response
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise AssertionError("it ended, or took too long")


@pytest.mark.slow
def test_the_space_serves_everybody_unless_it_has_keys(
    space: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = str(full_bundle(tmp_path_factory.mktemp("bundle")))
    with running(space, ETAFLOW_BUNDLE=bundle, ETAFLOW_API_KEYS="") as (process, url):
        assert answer(process, "GET", f"{url}/v1/health").json()["run"] == "small"
        assert answer(process, "POST", f"{url}/v1/verify").status_code == 422
        assert answer(process, "GET", f"{url}/metrics").status_code == 200
    with running(space, ETAFLOW_BUNDLE=bundle, ETAFLOW_API_KEYS="k") as (process, url):
        assert answer(process, "POST", f"{url}/v1/verify").status_code == 401

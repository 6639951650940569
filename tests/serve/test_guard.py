"""What page and API refuse: other sites, files that were not uploaded, calls without end."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import ROOT
from tests.serve_tools import Running, audio_file, counts, full_bundle, serve, spoken

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_bundle(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(bundle: Path, folder: Path) -> Iterator[Running]:
    (folder / "tmp").mkdir()
    settings = {"max_requests": 4, "max_payload_mb": 1.0}
    with serve(bundle, folder, settings, {"TMPDIR": str(folder / "tmp")}) as running:
        yield running


def page_files(folder: Path) -> Path:
    (cache,) = (folder / "tmp").glob("etaflow-page-*")
    return cache


def called(server: Running, data: list[Any], function: int = 0) -> str:
    """All that the page's queue says of a call."""
    body = {"fn_index": function, "session_hash": "s", "data": data}
    joined = requests.post(f"{server.url}/gradio_api/queue/join", json=body, timeout=60)
    if joined.status_code != 200:
        return f"{joined.status_code} {joined.text}"
    said = requests.get(
        f"{server.url}/gradio_api/queue/data", params={"session_hash": "s"}, timeout=60
    )
    return said.text


def of_the_page(path: str, **more: Any) -> list[Any]:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}} | more
    return [file, [], None, "copy", 4]


@pytest.mark.parametrize("more", [{}, {"is_stream": True}])
def test_the_page_reads_no_file_that_was_not_uploaded(
    server: Running, folder: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(audio_file(spoken(1, 1.0)))
    before = sorted(page_files(folder).rglob("*"))
    for path in (str(secret), "/etc/passwd", "/dev/zero", str(tmp_path / "missing.wav")):
        said = called(server, of_the_page(path, **more))
        assert '"success": true' not in said or "Not done" in said, path
        assert "audio/wav" not in said
        assert "Converted" not in said
    assert sorted(page_files(folder).rglob("*")) == before
    assert server.health().status_code == 200


def test_a_recording_that_was_uploaded_is_converted(server: Running, folder: Path) -> None:
    file = audio_file(spoken(1, 1.0))
    sent = requests.post(f"{server.url}/gradio_api/upload", files={"files": ("a.wav", file)})
    (path,) = sent.json()
    assert path.startswith(str(page_files(folder)))
    assert "Converted by copy" in called(server, of_the_page(path))
    assert stat.S_IMODE(page_files(folder).stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["/config", "/v1/health", "/v1/convert", "/gradio_api/upload"])
def test_pages_of_other_sites_are_refused(server: Running, path: str) -> None:
    evil = {"Origin": "https://evil.example"}
    for headers in (evil, evil | {"Host": "evil.example:80"}, {"Origin": "null"}):
        for ask in (requests.get, requests.post, requests.options):
            answer = ask(server.url + path, headers=headers, timeout=60)
            assert answer.status_code == 403
            assert "detail" in answer.json()
            assert not [name for name in answer.headers if name.lower().startswith("access-")]
    # A name that leads here is another site's, too.
    answer = requests.get(server.url + path, headers={"Host": "rebound.example"}, timeout=60)
    assert answer.status_code == 403
    assert "rebound.example" in answer.json()["detail"]


def test_the_page_itself_may_ask(server: Running) -> None:
    for host in (server.url.removeprefix("http://"), "localhost:1"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        answer = requests.get(f"{server.url}/config", headers=headers, timeout=60)
        assert answer.status_code == 200


def test_calls_of_the_page_have_an_end(server: Running) -> None:
    said = called(server, [None, [{"path": "x" * 70_000}], None, "copy", 4])
    assert said.startswith("413 ")
    for function in (99, -1):
        assert called(server, [], function).startswith("400 ")
    for wrong in ("no JSON", b"\xff\xfe", "[]"):
        answer = requests.post(f"{server.url}/gradio_api/queue/join", data=wrong, timeout=60)
        assert 400 <= answer.status_code < 500
    assert server.health().status_code == 200


def test_uploads_have_an_end(server: Running, folder: Path) -> None:
    # Four requests of a megabyte may be let in at a time.
    statuses = []
    for number in range(8):
        files = {"files": (f"{number}.wav", number.to_bytes(2, "big") * 400_000)}
        sent = requests.post(f"{server.url}/gradio_api/upload", files=files, timeout=60)
        statuses.append(sent.status_code)
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 429}
    assert "older ones go" in sent.json()["detail"]
    kept = sum(path.stat().st_size for path in page_files(folder).rglob("*.wav"))
    assert kept < 6_000_000


def test_paths_of_the_api_say_what_they_take(server: Running) -> None:
    answer = requests.get(f"{server.url}/v1/convert", timeout=60)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json() == {"detail": "/v1/convert takes POST"}
    assert requests.head(f"{server.url}/v1/health", timeout=60).status_code == 200
    assert requests.get(f"{server.url}/gradio_api/info", timeout=60).status_code == 404


def test_a_client_that_goes_away_is_no_failure_of_the_server(server: Running) -> None:
    import socket

    host, port = server.url.removeprefix("http://").split(":")
    before = server.log.read_text(encoding="utf-8").count("Traceback")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/convert HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
            )
            time.sleep(0.2)
    until, gone = time.monotonic() + 30, "etaflow_requests_total{status=499,task=convert}"
    while counts(server).get(gone, 0) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    assert counts(server)[gone] == 3
    assert not [key for key in counts(server) if "status=5" in key]
    assert server.log.read_text(encoding="utf-8").count("Traceback") == before


def test_what_a_killed_server_left_is_removed_by_the_next(bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from fastapi import FastAPI; "
        "from etaflow.serve.bundle import ServedBundle; from etaflow.serve.page import mount_page; "
        "from etaflow.serve.service import Service; from etaflow.serve.settings import Settings; "
        f"service = Service(ServedBundle.read({str(bundle)!r}), Settings()); "
        "mount_page(FastAPI(), service, None); print('mounted', flush=True); sys.stdin.read()"
    )
    environment = dict(os.environ, TMPDIR=str(tmp_path))

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "mounted\n"
        return process

    killed, living = start(), start()
    folders = set(tmp_path.glob("etaflow-page-*"))
    assert len(folders) == 2
    killed.kill()
    killed.wait()
    third = start()
    left = set(tmp_path.glob("etaflow-page-*"))
    assert len(left) == 2
    assert len(left & folders) == 1
    for process in (living, third):
        process.communicate("")
    assert json.dumps([str(path) for path in tmp_path.glob("etaflow-page-*")]) == "[]"

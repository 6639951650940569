"""`etaflow client …`: what it prints, writes and ends with."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from etaflow.cli import app
from tests.serve.fake_server import HEALTH, FakeServer, Reply, fake_server, words
from tests.serve.test_client import CONVERTED, DECISION, WAV, archive, files, server

__all__ = ["files", "server"]


def client(server: FakeServer, *arguments: object) -> Result:
    command = ["client", *map(str, arguments), "--url", server.url]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_convert_writes_and_shows_what_it_does(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, WAV, CONVERTED)]
    options = ["-o", tmp_path / "out.wav", "--method", "knn", "--topk", 2]
    done = client(server, "convert", files["source"], files["one"], files["other"], *options)
    assert (done.exit_code, done.stdout) == (0, "")
    assert (tmp_path / "out.wav").read_bytes() == WAV
    assert "sending: " in done.stderr
    assert "waiting for the answer: 121k/121k B" in done.stderr
    note = "note: the server stands on untrained weights; expect noise\n"
    assert done.stderr.endswith(note)
    assert server.posts[0].parts()[:3] == [
        ("topk", None, b"2"),
        ("format", None, b"wav"),
        ("method", None, b"knn"),
    ]


def test_nothing_is_noted_of_trained_weights(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, WAV, CONVERTED | {"X-Etaflow-Weights": "published"})]
    done = client(server, "convert", files["source"], files["one"], "-o", tmp_path / "out.wav")
    assert "note" not in done.stderr


def test_verify_prints_lines_or_json(server: FakeServer, files: dict[str, Path]) -> None:
    server.replies = [words(200, DECISION), words(200, DECISION | {"same_speaker": False})]
    done = client(server, "verify", files["one"], files["other"])
    assert (done.exit_code, done.stdout) == (
        0,
        "score:     0.7500 (cosine)\nthreshold: 0.5000\ndecision:  same speaker\n",
    )
    assert done.stderr.endswith("untrained weights; its decision says little\n")
    done = client(server, "verify", files["one"], files["other"], "--json")
    assert json.loads(done.stdout) == DECISION | {"same_speaker": False}


def test_separate_prints_its_files(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, archive({"source1.wav": WAV}))]
    done = client(server, "separate", files["one"], "-o", tmp_path / "new")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/new/source1.wav\n")


def test_analyze_and_health_print_json(server: FakeServer, files: dict[str, Path]) -> None:
    server.replies = [words(200, {"seconds": 1.5})]
    assert json.loads(client(server, "analyze", files["one"]).stdout) == {"seconds": 1.5}
    done = client(server, "health")
    assert (json.loads(done.stdout), done.stderr) == (HEALTH, "")


def test_errors_are_a_line_and_status_1(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [words(422, {"detail": "one is silent"})]
    done = client(server, "verify", files["one"], files["other"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"error: {server.url} refuses (422): one is silent"
    done = client(server, "convert", files["source"], files["one"], "-o", tmp_path / "out.mp3")
    expected = f"error: {tmp_path}/out.mp3: written are .wav and .flac, not .mp3\n"
    assert (done.exit_code, done.stderr) == (1, expected)


def test_without_a_server_it_says_so(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server() as server:
        pass
    done = client(server, "health")
    assert done.exit_code == 1
    assert "no connection, again in 0.5 s" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: no server answers at {server.url} (")


def test_a_key_comes_from_the_environment_only(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETAFLOW_API_KEY", "secret")
    assert client(server, "health").exit_code == 0
    assert server.log[0].headers["Authorization"] == "Bearer secret"
    for command in ("convert", "verify", "separate", "analyze", "health"):
        done = CliRunner().invoke(app, ["client", command, "--api-key", "secret"])
        assert done.exit_code == 2
        assert "No such option" in done.stderr

"""The client: what it sends, what it takes, and what it says when something is wrong."""

import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from etaflow.serve import client as client_module
from etaflow.serve import exchange
from etaflow.serve.client import Client, ClientError
from tests.serve.fake_server import (
    DROPPED,
    HEALTH,
    SILENT,
    FakeServer,
    Reply,
    fake_server,
    words,
)

WAV = b"RIFF1234WAVE" + b"a" * 40_000
FLAC = b"fLaC" + b"b" * 1000
CONVERTED = {"X-Etaflow-Method": "knn", "X-Etaflow-Weights": "untrained"}
DECISION = {
    "same_speaker": True,
    "score": 0.75,
    "unit": "cosine",
    "threshold": 0.5,
    "system": "s",
    "trials": {},
    "weights": "untrained",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.delenv("ETAFLOW_API_KEY", raising=False)
    with fake_server() as server:
        yield server


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.wav" for name in ("source", "one", "other")}
    for number, path in enumerate(paths.values()):
        path.write_bytes(WAV + bytes([number]))
    return paths


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return packed.getvalue()


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_convert_sends_a_form_and_writes_the_answer(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, FLAC, CONVERTED)]
    output = tmp_path / "new" / "out.FLAC"
    converted = Client(server.url + "/").convert(
        str(files["source"]), [files["one"], str(files["other"])], output, "knn", 7
    )
    assert (converted.audio, converted.format) == (FLAC, "flac")
    assert (converted.method, converted.weights) == ("knn", "untrained")
    assert output.read_bytes() == FLAC
    assert contents(output.parent) == {"out.FLAC"}
    assert [request.path for request in server.log] == ["/v1/health", "/v1/convert"]
    # Names of files stay where they are.
    assert server.posts[0].parts() == [
        ("topk", None, b"7"),
        ("format", None, b"flac"),
        ("method", None, b"knn"),
        ("source", "source", WAV + b"\0"),
        ("references", "references", WAV + b"\1"),
        ("references", "references", WAV + b"\2"),
    ]
    assert "Authorization" not in server.posts[0].headers


def test_without_an_output_the_audio_is_returned_as_wav(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, WAV, CONVERTED)]
    before = contents(tmp_path)
    assert Client(server.url).convert(files["source"], []).audio == WAV
    assert contents(tmp_path) == before
    names = [part[0] for part in server.posts[0].parts()]
    assert names == ["topk", "format", "source"]


def test_verify_and_analyze_return_what_the_server_says(
    server: FakeServer, files: dict[str, Path]
) -> None:
    server.replies = [words(200, DECISION), words(200, {"seconds": 1.5})]
    client = Client(server.url)
    assert client.verify(files["one"], files["other"]) == DECISION
    assert client.analyze(files["one"]) == {"seconds": 1.5}
    assert client.health() == HEALTH
    assert client.tasks == HEALTH["tasks"]
    assert [[part[0] for part in post.parts()] for post in server.posts] == [
        ["one", "other"],
        ["recording"],
    ]


def test_separate_writes_a_folder(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, archive({"source1.wav": WAV, "source2.wav": WAV + b"2"}))]
    folder = tmp_path / "speakers"
    written = Client(server.url).separate(files["one"], folder)
    assert written == [folder / "source1.wav", folder / "source2.wav"]
    assert [path.read_bytes() for path in written] == [WAV, WAV + b"2"]
    with pytest.raises(ClientError, match="speakers exists: name a folder that does not"):
        Client(server.url).separate(files["one"], folder)
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("variable", "argument", "sent"),
    [("k1", None, "Bearer k1"), ("k1", "k2", "Bearer k2"), ("", None, None), ("k1", "", None)],
)
def test_the_key_is_that_of_the_environment_or_the_argument(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    argument: str | None,
    sent: str | None,
) -> None:
    monkeypatch.setenv("ETAFLOW_API_KEY", variable)
    Client(server.url, argument).health()
    assert server.log[0].headers["Authorization"] == sent


def test_a_key_is_not_taken_from_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine etaflow.example login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session = Client("http://etaflow.example", "k")._exchange._session
    request = exchange.requests.Request("GET", "http://etaflow.example/v1/health")
    assert session.prepare_request(request).headers["Authorization"] == "Bearer k"


def test_this_machine_is_asked_without_a_proxy(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert Client(server.url).health() == HEALTH


def test_lost_connections_and_a_busy_server_are_tried_again(
    server: FakeServer, files: dict[str, Path], waits: list[float]
) -> None:
    server.replies = [
        words(503, {"detail": "no worker is ready yet"}, Retry_After="7"),
        words(429, {"detail": "too many"}),
        DROPPED,
        Reply(200, WAV, CONVERTED, lost=100),
        Reply(200, WAV, CONVERTED),
    ]
    assert Client(server.url, retries=4).convert(files["source"], [files["one"]]).audio == WAV
    assert waits == [7.0, 1.0, 2.0, 4.0]
    assert [request.path for request in server.log] == ["/v1/health"] + ["/v1/convert"] * 5
    assert len({request.body for request in server.posts}) == 1


@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("100000", 30.0),
        ("0", 0.0),
        ("soon", 0.5),
        ("-3", 0.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_waits_that_a_server_asks_for_are_bounded(
    server: FakeServer, files: dict[str, Path], waits: list[float], header: str, waited: float
) -> None:
    server.replies = [words(429, {"detail": "too many"}, Retry_After=header), words(200, {})]
    Client(server.url).analyze(files["one"])
    assert waits == [waited]


def test_a_server_that_stays_busy_is_given_up(
    server: FakeServer, files: dict[str, Path], waits: list[float], tmp_path: Path
) -> None:
    server.replies = [words(429, {"detail": "64 requests are being answered"})] * 4
    with pytest.raises(ClientError, match=r"refuses \(429\): 64 requests are being answered"):
        Client(server.url).convert(files["source"], [files["one"]], tmp_path / "out.wav")
    assert waits == [0.5, 1.0, 2.0]
    assert len(server.posts) == 4
    assert "out.wav" not in contents(tmp_path)


@pytest.mark.parametrize("status", [400, 404, 408, 413, 422, 500])
def test_refusals_are_final_and_say_why(
    server: FakeServer, files: dict[str, Path], waits: list[float], status: int
) -> None:
    server.replies = [words(status, {"detail": "one is silent"})]
    with pytest.raises(ClientError, match=rf"^{server.url} refuses \({status}\): one is silent$"):
        Client(server.url).verify(files["one"], files["other"])
    assert (len(server.posts), waits) == (1, [])


def test_an_answer_that_does_not_come_is_not_asked_for_twice(
    server: FakeServer, files: dict[str, Path], waits: list[float]
) -> None:
    server.replies = [SILENT]
    with pytest.raises(ClientError, match=r"took the request, but did not answer for 0\.2 s"):
        Client(server.url, timeout=0.2).analyze(files["one"])
    assert (len(server.posts), waits) == (1, [])


def test_a_cut_answer_leaves_no_file(
    server: FakeServer, files: dict[str, Path], waits: list[float], tmp_path: Path
) -> None:
    (tmp_path / "out.wav").write_bytes(b"old")
    before = contents(tmp_path)
    server.replies = [Reply(200, WAV, CONVERTED, lost=1)] * 2
    with pytest.raises(ClientError, match="no server answers at"):
        Client(server.url, retries=1).convert(files["source"], [], tmp_path / "out.wav")
    assert waits == [0.5]
    assert contents(tmp_path) == before
    assert (tmp_path / "out.wav").read_bytes() == b"old"


def test_where_no_server_is_it_says_how_to_start_one(waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClientError) as raised:
            Client(url).health()
    assert str(raised.value) == (
        f"no server answers at {url} ([Errno 111] Connection refused); start one with `etaflow "
        "serve --bundle results/RUN/bundle --port 8000`, or give the URL of another"
    )
    assert waits == [0.5, 1.0, 2.0]


HTML = Reply(200, b"<html>hello</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "reply",
    [
        HTML,
        Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
        words(200, {"status": "ok"}),
        words(200, HEALTH | {"tasks": ["convert"]}),
        words(200, [1]),
        words(404, {"detail": "Not Found"}),
        Reply(200, b"[" * 100_000),
        Reply(200, b"\xff\xfe"),
    ],
)
def test_other_servers_are_known_before_audio_is_sent(
    server: FakeServer, files: dict[str, Path], reply: Reply
) -> None:
    server.health = reply
    with pytest.raises(ClientError, match=f"answers at {server.url} is no server of etaflow's"):
        Client(server.url).analyze(files["one"])
    assert server.posts == []


@pytest.mark.parametrize("reply", [HTML, words(200, [1]), words(200, {"score": 1.0})])
def test_answers_of_another_kind_are_no_results(
    server: FakeServer, files: dict[str, Path], tmp_path: Path, reply: Reply
) -> None:
    server.replies = [reply] * 2
    client = Client(server.url)
    with pytest.raises(ClientError, match="no server of etaflow's"):
        client.verify(files["one"], files["other"])
    with pytest.raises(ClientError, match="no server of etaflow's"):
        client.convert(files["source"], [], tmp_path / "out.flac")
    assert "out.flac" not in contents(tmp_path)


def test_numbers_of_a_decision_are_numbers(server: FakeServer, files: dict[str, Path]) -> None:
    server.replies = [words(200, DECISION | {"score": "\x1b[2J"})]
    with pytest.raises(ClientError, match="no server of etaflow's"):
        Client(server.url).verify(files["one"], files["other"])


def test_redirects_are_named_and_not_followed(server: FakeServer) -> None:
    server.health = Reply(301, b"", {"Location": "https://elsewhere.example/v1/health"})
    with pytest.raises(ClientError, match=r"redirects to https://elsewhere\.example/v1/health"):
        Client(server.url, "secret").health()


def test_keys_that_are_missing_or_wrong(server: FakeServer, files: dict[str, Path]) -> None:
    server.replies = [words(401, {"detail": "a key is needed"})] * 2
    with pytest.raises(ClientError, match="wants a key, set ETAFLOW_API_KEY to one: a key is"):
        Client(server.url).analyze(files["one"])
    with pytest.raises(ClientError, match="does not take the key in ETAFLOW_API_KEY") as raised:
        Client(server.url, "secret").analyze(files["one"])
    assert "secret" not in str(raised.value)


def test_a_server_that_starts_is_waited_for(server: FakeServer, waits: list[float]) -> None:
    server.health = words(503, HEALTH | {"status": "starting"}, Retry_After="2")
    with pytest.raises(ClientError, match="still loads its models: try again later"):
        Client(server.url).health()
    assert waits == [2.0, 2.0, 2.0]


def test_too_much_is_not_sent(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(b"RIFF" + bytes(600_000))
    with pytest.raises(ClientError, match=r"takes 0\.5 MB at a time, and the recordings have 0\.6"):
        Client(server.url).analyze(tmp_path / "long.wav")
    assert server.posts == []


def test_inputs_are_checked_before_anything_is_asked(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").touch()
    client, good = Client(server.url), files["one"]
    for bad, reason in {
        "none.wav": "No such file or directory",
        ".": "Is a directory",
        "empty.wav": "is empty",
    }.items():
        with pytest.raises(ClientError, match=reason):
            client.convert(good, [tmp_path / bad], tmp_path / "out.wav")
        with pytest.raises(ClientError, match=reason):
            client.verify(tmp_path / bad, good)
        with pytest.raises(ClientError, match=reason):
            client.separate(tmp_path / bad, tmp_path / "new")
    assert server.log == []


def test_outputs_are_checked_before_anything_is_asked(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "link.wav").symlink_to(files["other"])
    (tmp_path / "folder.wav").mkdir()
    for name, reason in {
        "out.mp3": r"written are \.wav and \.flac, not \.mp3",
        "out": "not no suffix",
        "folder.wav": "is a folder",
        "other.wav": "is one of the recordings",
        "link.wav": "is one of the recordings",
    }.items():
        with pytest.raises(ClientError, match=reason):
            Client(server.url).convert(files["source"], [files["other"]], tmp_path / name)
    assert server.log == []


def test_an_output_that_cannot_be_written_is_an_error(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    server.replies = [Reply(200, WAV, CONVERTED), Reply(200, archive({"source1.wav": WAV}))]
    client = Client(server.url)
    with pytest.raises(ClientError, match=r"out\.wav cannot be written"):
        client.convert(files["source"], [], files["one"] / "out.wav")
    with pytest.raises(ClientError, match="new cannot be written"):
        client.separate(files["source"], files["one"] / "new")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:port",
        "http://127.0.0.1:8000/?key=1",
        "http://[::1",
    ],
)
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ClientError) as raised:
        Client(url)
    assert str(raised.value).startswith(f"{url}")


def test_keys_in_a_url_are_refused_and_not_told() -> None:
    with pytest.raises(ClientError, match="set ETAFLOW_API_KEY") as raised:
        Client("http://me:secret@127.0.0.1:8000")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "packed",
    [
        archive({"../source1.wav": WAV}),
        archive({"/source1.wav": WAV}),
        archive({"source1.wav": WAV, "notes.txt": b"RIFF"}),
        archive({"source1.wav/": b""}),
        archive({"source0.wav": WAV}),
        archive({"source1.wav\n": WAV}),
        archive({"source١.wav": WAV}),
        archive({"source1.wav": b"#!/bin/sh"}),
        archive({f"source{n}.wav": b"RIFF" for n in range(1, 102)}),
        archive({}),
        archive({"source1.wav": bytes(300_000)}, zipfile.ZIP_DEFLATED),
        archive({"source1.wav": WAV})[:-30],
        archive({"source1.wav": WAV}).replace(b"a" * 50, b"c" * 50, 1),
        b"<html>hello</html>",
        b"",
    ],
)
def test_archives_with_anything_but_sources_are_refused(
    server: FakeServer,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packed: bytes,
) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 200_000)
    server.replies = [Reply(200, packed)]
    before = contents(tmp_path)
    with pytest.raises(ClientError, match="sent no usable sources"):
        Client(server.url).separate(files["one"], tmp_path / "new")
    assert contents(tmp_path) == before


def test_two_files_of_one_name_are_refused(
    server: FakeServer, files: dict[str, Path], tmp_path: Path
) -> None:
    packed = archive({"source1.wav": WAV, "source2.wav": WAV}).replace(b"source2", b"source1")
    server.replies = [Reply(200, packed)]
    with pytest.raises(ClientError, match="two files in it have one name"):
        Client(server.url).separate(files["one"], tmp_path / "new")


def test_an_endless_answer_is_not_kept(
    server: FakeServer, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 10_000)
    server.replies = [Reply(200, WAV, CONVERTED)]
    with pytest.raises(ClientError, match="answers more than 10,000 bytes"):
        Client(server.url).convert(files["source"], [])


def test_progress_tells_of_sending_waiting_and_trying_again(
    server: FakeServer, files: dict[str, Path], waits: list[float]
) -> None:
    told: list[tuple[str, int, int]] = []
    server.replies = [words(503, {"detail": "busy"}), words(200, {})]
    client = Client(server.url, progress=lambda *each: told.append(each))
    client.analyze(files["one"])
    size = len(server.posts[0].body)
    once = [*(("sending", min(n, size), size) for n in (16_384, 32_768, 49_152))]
    once += [("waiting for the answer", size, size)]
    assert told == [*once, ("the server is busy, again in 0.5 s", 0, size), *once]


@pytest.mark.parametrize("module", ["etaflow.serve.client", "etaflow.cli"])
def test_the_client_needs_neither_pytorch_nor_a_server(module: str) -> None:
    heavy = {"torch", "numpy", "fastapi", "litserve", "gradio", "pydantic"}
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []

"""What a server allows: each limit, what is said of what is beyond it, and that others go on."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from etaflow.serve.settings import Settings, SettingsError, read_settings
from tests.conftest import ROOT
from tests.serve_tools import (
    Running,
    audio_file,
    base64_of,
    counts,
    lively_bundle,
    samples_of,
    serve,
    spoken,
    worker_processes,
)

SETTINGS = {
    "max_payload_mb": 1.5,
    "max_seconds": 4.0,
    "max_references": 3,
    "max_requests": 6,
    "timeout_seconds": 30.0,
    "body_seconds": 3.0,
    "batch_wait_seconds": 1.0,
}


def test_the_file_in_config_holds_the_defaults() -> None:
    path = ROOT / "config" / "serve.yaml"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == Settings().model_dump()
    assert read_settings(path) == Settings() == read_settings(None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_second: 3", "max_second: Extra inputs are not permitted"),
        ("max_seconds: 0", "max_seconds: Input should be greater than 0"),
        ("max_requests: 1.5", "max_requests: Input should be a valid integer"),
        ("batch: 0", "batch: Input should be greater than 0"),
        ("public: 1", "public: Input should be a valid boolean"),
        ("timeout_seconds: .nan", "timeout_seconds: Input should be"),
        ("max_seconds: .inf", "max_seconds: Input should be"),
        ("- 1", "the file: Input should be a valid dictionary"),
        ("a: [", "while parsing"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_settings_that_are_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        read_settings(tmp_path / "none.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("limits")
    with serve(lively_bundle(folder), folder / "server", SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def good() -> bytes:
    return audio_file(spoken(0, 1.0))


def ask(server: Running, files: list[bytes], **fields: Any) -> requests.Response:
    """A conversion, by a form."""
    parts = [("source", files[0]), *(("references", file) for file in files[1:])]
    return requests.post(f"{server.url}/v1/convert", data=fields, files=parts, timeout=300)


def assert_refused(answer: requests.Response, status: int, told: str) -> None:
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"detail"}
    assert told in answer.json()["detail"]


def silent(seconds: float, rate: int = 16_000) -> bytes:
    return audio_file(np.zeros(round(seconds * rate), np.float32), rate)


def with_value(value: float) -> bytes:
    """A recording of floats, one of which is this value."""
    waveform = spoken(0, 1.0)
    waveform[5_000] = value
    return audio_file(waveform, subtype="FLOAT")


def flac_that_promises(samples: int) -> bytes:
    """A short FLAC file whose header tells another length."""
    file = bytearray(audio_file(spoken(0, 1.0), kind="FLAC"))
    # STREAMINFO is from byte 8; its bits 108 to 143 are the number of samples.
    bits = int.from_bytes(file[18:26], "big")
    file[18:26] = (bits >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(file)


BAD = {
    "empty": (b"", "the source is empty"),
    "no audio": (b"words, and no audio", "no audio file that is taken here"),
    "short": (audio_file(spoken(0, 0.09)), "shorter than 0.1 s (0.090 s)"),
    "silent": (silent(1.0), "the source is silent"),
    "nan": (with_value(float("nan")), "the source: NaN or infinite samples"),
    "infinite": (with_value(float("-inf")), "the source: NaN or infinite samples"),
    "low rate": (audio_file(spoken(0, 1.0, 4_000), 4_000), "rate of 4000 Hz is outside 8 to 96"),
    "high rate": (audio_file(spoken(0, 0.2, 192_000), 192_000), "192000 Hz is outside 8 to 96"),
    "channels": (audio_file(np.stack([spoken(0, 0.5)] * 9, axis=1)), "9 channels; at most 8"),
    "long": (audio_file(spoken(0, 4.1)), "4.1 s or more; at most 4 s are taken"),
    "long by its header": (flac_that_promises(16_000 * 3_600), "3600.0 s or more; at most 4 s"),
    "truncated": (audio_file(spoken(0, 1.0))[:-100], "the source: truncated"),
    "truncated FLAC": (flac_that_promises(20_000), "the source: "),
    "AIFF": (audio_file(spoken(0, 1.0), kind="AIFF"), "WAV, FLAC, Ogg and MP3 are"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_recording_that_cannot_be_used_is_refused(
    server: Running, good: bytes, name: str
) -> None:
    bad, told = BAD[name]
    assert_refused(ask(server, [bad, good]), 422, told)
    at_reference = told.replace("the source", "reference 2")
    assert_refused(ask(server, [good, good, bad]), 422, at_reference)
    answer = requests.post(
        f"{server.url}/v1/analyze", json={"recording": base64_of(bad)}, timeout=60
    )
    assert_refused(answer, 422, told.replace("the source", "the recording"))


@pytest.mark.slow
def test_what_lasts_as_long_as_allowed_is_taken(server: Running, good: bytes) -> None:
    assert ask(server, [audio_file(spoken(0, 4.0)), good]).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "best"}, "method 'best': this bundle has copy, knn, "),
        ({"topk": "0"}, "topk: Input should be greater than or equal to 1"),
        ({"topk": "nan"}, "topk: Input should be a valid integer"),
        ({"topk": "2.5"}, "topk: Input should be a valid integer"),
        ({"topk": "33"}, "topk: Input should be less than or equal to 32"),
        ({"format": "mp3"}, "format: Input should be 'wav' or 'flac'"),
        ({"volume": "11"}, "a field called 'volume'"),
    ],
)
def test_an_argument_that_is_none_is_refused(
    server: Running, good: bytes, fields: dict[str, str], told: str
) -> None:
    assert_refused(ask(server, [good, good], **fields), 422, told)


@pytest.mark.slow
def test_references_are_counted(server: Running, good: bytes) -> None:
    assert ask(server, [good] * 4, method="knn").status_code == 200
    assert_refused(ask(server, [good]), 422, "needs a reference, and there is none")
    assert_refused(ask(server, [good] * 5), 422, "more than 4 files")
    assert_refused(ask(server, [good] * 20), 400, "Too many files")
    body = {"source": base64_of(good), "references": [base64_of(good)] * 4}
    answer = requests.post(f"{server.url}/v1/convert", json=body, timeout=60)
    assert_refused(answer, 422, "4 references; at most 3 are taken")


@pytest.mark.slow
def test_bodies_of_forms_and_of_json_are_no_other(server: Running, good: bytes) -> None:
    url = f"{server.url}/v1/convert"
    assert_refused(requests.post(url, data=b"{", timeout=60), 400, "the body is no JSON")
    assert_refused(requests.post(url, json=[], timeout=60), 422, "body: ")
    assert_refused(requests.post(url, json={}, timeout=60), 422, "source: Field required")
    many = requests.post(url, files=[("source", good), ("source", good)], timeout=60)
    assert_refused(many, 422, "2 files called 'source'; one is needed")
    kind = {"Content-Type": "multipart/form-data"}
    answer = requests.post(url, data=b"x", headers=kind, timeout=60)
    assert_refused(answer, 400, "no form that can be read")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1_500_001, 4_000_000, 20_000_000])
def test_large_bodies_are_refused(server: Running, size: int) -> None:
    url, told = f"{server.url}/predict", "the request's body has more than 1.5 MB"
    body = b'{"audio1": "' + b"A" * (size - 12)
    if size < 6_000_000:  # more is not read to its end
        assert_refused(requests.post(url, data=body, timeout=60), 413, told)
        # Without a length, in chunks.
        pieces = (body[start : start + 65_536] for start in range(0, size, 65_536))
        assert_refused(requests.post(url, data=pieces, timeout=60), 413, told)
    with connection(server) as sender:
        head = (
            f"POST /v1/convert HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {10 * size}\r\n\r\n"
        )
        sender.sendall(head.encode())
        with_end = send_until_answered(sender, body)
        assert with_end.startswith(b"HTTP/1.1 413 ")
        assert told.encode() in with_end


@pytest.mark.slow
def test_a_body_as_large_as_allowed_is_read(server: Running) -> None:
    body = b"[" + b" " * (1_500_000 - 2) + b"]"
    answer = requests.post(f"{server.url}/predict", data=body, timeout=60)
    assert_refused(answer, 422, "body: ")


@contextmanager
def connection(server: Running) -> Iterator[socket.socket]:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as opened:
        yield opened


def send_until_answered(sender: socket.socket, body: bytes) -> bytes:
    """The answer to a body that is sent again and again."""
    sender.settimeout(0.01)
    received = b""
    for _ in range(2_000):
        try:
            sender.sendall(body[:65_536])
        except TimeoutError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            break
        try:
            received += sender.recv(65_536)
        except TimeoutError:
            continue
        if b"}" in received:
            break
    return received


@pytest.mark.slow
@pytest.mark.parametrize("trickle", [False, True])
def test_a_body_that_does_not_arrive_is_given_up(server: Running, trickle: bool) -> None:
    with connection(server) as sender:
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
        sender.sendall(head.encode())
        received = b""
        sender.settimeout(0.2 if trickle else 60)
        for _ in range(300):
            if trickle:
                sender.sendall(b" ")
            try:
                received += sender.recv(65_536)
            except TimeoutError:
                continue
            if b"}" in received:
                break
    assert received.startswith(b"HTTP/1.1 408 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == {
        "detail": "the request's body did not arrive within 3 s"
    }


@contextmanager
def stopped_worker(server: Running) -> Iterator[None]:
    """Jobs wait, until the block ends."""
    (worker,) = worker_processes(server)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def until_inside(server: Running, wanted: int) -> None:
    """Wait until so many requests are being answered."""
    for _ in range(600):
        if counts(server)["etaflow_queue"] == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"{counts(server)['etaflow_queue']} requests, not {wanted}")


@pytest.mark.slow
def test_more_requests_than_allowed_are_sent_away(server: Running, good: bytes) -> None:
    with ThreadPoolExecutor(6) as pool:
        with stopped_worker(server):
            waiting = [pool.submit(ask, server, [good, good]) for _ in range(6)]
            until_inside(server, 6)
            # A small one, and one whose body is still being sent when it is refused.
            for files in ([good, good], [bytes(1_000_000), good]):
                answer = ask(server, files)
                assert_refused(answer, 429, "6 requests are being answered, and no more")
                assert int(answer.headers["Retry-After"]) >= 1
            assert server.health().status_code == 200
        assert [each.result().status_code for each in waiting] == [200] * 6
    assert ask(server, [good, good]).status_code == 200


@pytest.mark.slow
def test_a_request_that_takes_too_long_is_given_up(server: Running, good: bytes) -> None:
    with stopped_worker(server):
        assert_refused(ask(server, [good, good]), 408, "not done within 30 s")
    until_inside(server, 0)
    # What nobody waits for is not computed, and does not disturb the next.
    assert ask(server, [good, good]).status_code == 200


@pytest.mark.slow
def test_a_bad_request_does_not_touch_those_beside_it(server: Running) -> None:
    good = [[audio_file(spoken(2 * n + m, 1.0 + n / 8)) for m in (0, 1)] for n in range(3)]
    # By a map, not by neighbours: of two that are equally near, rounding chooses.
    alone = [ask(server, files, method="linear-eta") for files in good]
    huge = audio_file(np.full(16_000, 1e30, np.float32), subtype="FLOAT")
    bad: list[tuple[list[bytes], dict[str, Any], str]] = [
        ([huge, good[0][1]], {}, "not finite"),  # that is seen only when it is computed
        ([good[0][0], huge], {"method": "knn-eta"}, "not finite"),
        ([good[1][0], audio_file(spoken(9, 0.1))], {"method": "mkl"}, "give a longer recording"),
        ([good[2][0], audio_file(spoken(9, 0.1))], {"topk": 5}, "5"),
        ([good[0][0], silent(1.0)], {}, "reference 1 is silent"),
        ([silent(0.05), good[0][1]], {}, "the source is shorter"),
    ]
    for start in (0, 3):
        with ThreadPoolExecutor(6) as pool:
            # All of them lie ready when the worker goes on: it takes them as one batch.
            with stopped_worker(server):
                tried: list[Future[requests.Response]] = []
                right: list[Future[requests.Response]] = []
                for files, (others, fields, _) in zip(good, bad[start : start + 3], strict=True):
                    tried.append(pool.submit(ask, server, others, **fields))
                    right.append(pool.submit(ask, server, files, method="linear-eta"))
                until_inside(server, 6 if start == 0 else 4)
            for future, (_, _, told) in zip(tried, bad[start : start + 3], strict=True):
                assert_refused(future.result(), 422, told)
            for one, before in zip(right, alone, strict=True):
                answer = one.result()
                assert answer.status_code == before.status_code == 200
                made, expected = samples_of(answer.content)[0], samples_of(before.content)[0]
                assert made.shape == expected.shape
                assert np.abs(made - expected).max() <= 1.5 / 2**15  # see `test_http`
    assert counts(server)["etaflow_worker_restarts_total"] == 0

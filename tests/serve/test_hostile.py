"""Requests that are made to do harm: each is refused in words, and none leaves a trace."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import soundfile

from tests.serve_tools import (
    Running,
    audio_file,
    base64_of,
    counts,
    full_bundle,
    serve,
    spoken,
    worker_processes,
)

pytestmark = pytest.mark.slow

REQUESTS = 300
SETTINGS = {"max_payload_mb": 4.0, "max_seconds": 5.0, "body_seconds": 5.0}
FIELDS = {
    "/predict": ["audio1", "audio2"],
    "/v1/convert": ["source", "references"],
    "/v1/analyze": ["recording"],
    "/v1/verify": ["one", "other"],
    "/v1/separate": ["mixture"],
}
ROUTES = list(FIELDS)
FORMS = ROUTES[1:]  # routes that take one
# In all that is sent; not to be found in the server's log.
MARK = "fragment-5Zq8"
# By which processes may grow, beyond what as many such requests before made them: what is kept
# at most is one body, 5 s of 8 channels, and what the allocator does not give back.
GROWTH = 100e6  # bytes

Sent = tuple[str, dict[str, str], bytes]  # route, headers, body


def sound(random: np.random.Generator) -> bytes:
    """A good file of any format."""
    kinds = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]
    kinds += [("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
    kind, subtype = kinds[random.integers(len(kinds))]
    return audio_file(spoken(int(random.integers(3)), 0.5), 16_000, kind, subtype=subtype)


def damaged(random: np.random.Generator) -> bytes:
    """A file that is cut, or whose bytes are others, mostly in its header."""
    file = bytearray(sound(random))
    if random.random() < 0.4:
        return bytes(file[: random.integers(1, len(file))])
    size = len(file) if random.random() < 0.3 else 100
    for place in random.integers(0, size, random.integers(1, 20)):
        file[place] = random.integers(256)
    return bytes(file)


def wav_header(random: np.random.Generator) -> bytes:
    """1 KB that says that it is hours, thousands of channels, or of no rate."""
    file = bytearray(audio_file(spoken(0, 0.03)))
    fields = {22: (2, [0, 9, 1024, 65_535]), 24: (4, [0, 1, 2**31, 2**32 - 1])}
    fields |= {4: (4, [0, 2**32 - 1]), 16: (4, [0, 15, 2**31]), 32: (2, [0, 65_535])}
    fields |= {34: (2, [0, 1, 65_535]), 40: (4, [0, 7_200 * 32_000, 2**32 - 2, 2**32 - 1])}
    chosen = random.permutation(list(fields))[: random.integers(1, 4)]
    for place in chosen:
        size, values = fields[int(place)]
        value = values[random.integers(len(values))]
        file[place : place + size] = value.to_bytes(size, "little")
    return bytes(file)


def bomb(random: np.random.Generator) -> bytes:
    """Much silence in few bytes; with a header that tells, or that does not."""
    kind, subtype = [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")][random.integers(3)]
    packed = io.BytesIO()
    with soundfile.SoundFile(packed, "w", 16_000, 1, subtype, format=kind) as opened:
        for _ in range(int(random.choice([60, 600]))):  # at once, libsndfile would end the process
            opened.write(np.zeros(16_000, np.float32))
    file = bytearray(packed.getvalue())
    if kind == "FLAC" and random.random() < 0.5:
        bits = int.from_bytes(file[18:26], "big")
        samples = int(random.choice([0, 16_000, 2**36 - 1]))
        file[18:26] = (bits >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(file)


def noise(random: np.random.Generator) -> bytes:
    """Bytes that begin like audio."""
    heads = [b"RIFF\xff\xff\xff\xffWAVE", b"RF64\xff\xff\xff\xffWAVEds64", b"fLaC", b"OggS", b"ID3"]
    heads += [b"\xff\xfb\x90\x00", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", b"", b"\x1f\x8b\x08"]
    return heads[random.integers(len(heads))] + random.bytes(random.integers(0, 5_000))


def zip_bomb(random: np.random.Generator) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"../{MARK}", bytes(20_000_000))
    return packed.getvalue()


FILES: list[Callable[[np.random.Generator], bytes]] = [damaged, wav_header, bomb, noise, zip_bomb]
FILES += [damaged, wav_header]  # which are of most kinds


def bad_file(random: np.random.Generator) -> bytes:
    return FILES[random.integers(len(FILES))](random)


def json_of_files(random: np.random.Generator) -> Sent:
    route = ROUTES[random.integers(len(ROUTES))]
    body: dict[str, Any] = {}
    for name in FIELDS[route]:
        text = base64_of(bad_file(random) if random.random() < 0.7 else sound(random))
        body[name] = [text] if name == "references" else text
    body[FIELDS[route][0]] = base64_of(bad_file(random))
    return route, {"X-Note": MARK}, json.dumps(body).encode()


def form_of_files(random: np.random.Generator) -> Sent:
    route = FORMS[random.integers(len(FORMS))]
    files = [(name, (f"../../{MARK}\x01.wav", bad_file(random))) for name in FIELDS[route]]
    return (route, *prepared(files, {}))


def prepared(files: Any, fields: Any) -> tuple[dict[str, str], bytes]:
    request = requests.Request("POST", "http://x/", files=files, data=fields).prepare()
    assert isinstance(request.body, bytes)
    return {"Content-Type": request.headers["Content-Type"]}, request.body


def fuzzed_base64(random: np.random.Generator) -> Sent:
    route = ROUTES[random.integers(len(ROUTES))]
    text = list(base64_of(sound(random)))
    for place in random.integers(0, len(text), 5):
        text[place] = ["=", "\n", "-", "é", "\0", "😀", " "][random.integers(7)]
    values = [MARK + "".join(text), "", "=", "A", "AAA", "data:audio/wav;base64,AAAA"]
    body = {name: values[random.integers(len(values))] for name in FIELDS[route]}
    return route, {}, json.dumps(body).encode()


def wrong_json(random: np.random.Generator) -> Sent:
    route = ROUTES[random.integers(len(ROUTES))]
    name = FIELDS[route][0]
    good = json.dumps(base64_of(sound(random)))
    options = f'"source": {good}, "references": [{good}]'
    bodies = [
        "[" * 100_000,
        '{"a":' * 50_000,
        f'{{"{name}": ' + "[" * 5_000 + "]" * 5_000 + "}",
        f'{{"{name}": 1e999999}}',
        f'{{"{name}": {"9" * 10_000}}}',
        f'{{"{name}": NaN}}',
        f'{{"{name}": "\\ud800{MARK}"}}',
        f'{{"{name}": {good}, "{name}": "{MARK}"}}',
        f'{{"{name}": null, "{MARK}": {good}}}',
        f'{{"{name}": {{"{MARK}": true}}}}',
        f'"{MARK}"',
        "",
        "\0" * 100,
        f'{{{options}, "topk": NaN}}',
        f'{{{options}, "topk": -1}}',
        f'{{{options}, "topk": 1{"0" * 300}}}',
        f'{{{options}, "topk": true, "method": 7}}',
        f'{{{options}, "method": "{MARK * 50_000}"}}',
        f'{{{options}, "method": "../../etc/passwd"}}',
        f'{{{options}, "format": "{MARK}"}}',
        f'{{"source": {good}, "references": {json.dumps([MARK] * 20_000)}}}',
        f'{{"source": {good}, "references": []}}',
        f'{{"source": {good}, "references": {good}}}',
        json.dumps({f"{MARK}{n}": n for n in range(20_000)}),
    ]
    body = bodies[random.integers(len(bodies))].encode()
    if random.random() < 0.2:
        body = body[: len(body) // 2] + b"\xff\xfe\xc0" + MARK.encode() + body[len(body) // 2 :]
    kinds = [
        "application/json",
        "text/plain",
        "",
        "application/x-www-form-urlencoded",
        "\u00e9/\u00e9",
    ]
    headers = {"Content-Type": kinds[random.integers(len(kinds))]}
    if random.random() < 0.2:
        headers["Content-Encoding"] = "gzip"
        body = zlib.compress(bytes(10_000_000), wbits=31)
    return route, headers, body


def wrong_form(random: np.random.Generator) -> Sent:
    route = FORMS[random.integers(len(FORMS))]
    name = FIELDS[route][0]
    headers, body = prepared([(name, ("x.wav", sound(random)))], {"topk": "4"})
    kind = headers["Content-Type"]
    boundary = kind.partition("boundary=")[2]
    many = [(name, (f"{n}", b"x")) for n in range(3_000)]
    part = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="\0{MARK}"\r\n'
    forms: list[tuple[str, bytes]] = [
        ("multipart/form-data", body),
        ("multipart/form-data; boundary=", body),
        (f"multipart/form-data; boundary={MARK}", body),
        (f"multipart/form-data; boundary={'x' * 5_000}", body),
        ("multipart/form-data; boundary=\u00e9\u00ff", body),
        (f"{kind}; charset={MARK}", body),
        (f"{kind}; charset=utf-16", body),
        (kind, body[:-30]),
        (kind, body.replace(b"\r\n", b"\n")),
        (kind, body.replace(f"--{boundary}".encode(), f"--{MARK}".encode(), 1)),
        (kind, body.replace(b"Content-Disposition", MARK.encode())),
        (kind, body.replace(b"form-data", b"attachment")),
        (kind, body.replace(f'name="{name}"'.encode(), b'name="' + b"n" * 70_000 + b'"')),
        (kind, body.replace(f'name="{name}"'.encode(), b"name=\xff\xfe")),
        (kind, random.bytes(3_000)),
        (kind, b""),
        ("multipart/form-data; boundary=x", part.encode() + b"\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", part.encode() + b"X: " + b"y" * 200_000),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 50_000),
        (prepared(many, {})[0]["Content-Type"], b""),
    ]
    chosen = int(random.integers(len(forms) + 2))
    if chosen >= len(forms):
        fields = {f"{MARK}{n}": "1" for n in range(3_000)}
        made, body = prepared(many if chosen == len(forms) else [("x", b"")], fields)
        return route, made, body
    kind, body = forms[chosen]
    return route, {"Content-Type": kind}, body


KINDS = [json_of_files, form_of_files, fuzzed_base64, wrong_json, wrong_form]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hostile")
    with serve(full_bundle(folder), folder / "server", SETTINGS) as running:
        yield running


def post(server: Running, sent: Sent) -> requests.Response:
    route, headers, body = sent
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    return requests.post(f"{server.url}{route}", data=body, headers=raw, timeout=120)


def processes(server: Running) -> list[psutil.Process]:
    return [psutil.Process(server.process.pid), *worker_processes(server)]


def sizes(server: Running) -> list[int]:
    return [each.memory_info().rss for each in processes(server)]


def send(server: Running, seed: int, count: int) -> list[int]:
    """Seeded requests of all kinds; the statuses of their answers."""
    random = np.random.default_rng(seed)
    statuses = []
    for number in range(count):
        make = KINDS[number % len(KINDS)]
        sent = make(random)
        answer = post(server, sent)
        about = f"{make.__name__} {number}: {sent[0]} {sent[1]} {sent[2][:200]!r}: "
        about += answer.text[:200]
        assert answer.status_code in (200, 400, 413, 422), about
        if answer.status_code != 200:
            assert answer.headers["Content-Type"] == "application/json", about
            assert answer.json().keys() == {"detail"}, about
            assert isinstance(answer.json()["detail"], str), about
            assert len(answer.content) < 2_000, about
        statuses.append(answer.status_code)
    return statuses


def assert_well(server: Running) -> None:
    file = audio_file(spoken(0, 0.5))
    body = {"audio1": base64_of(file), "audio2": base64_of(file)}
    answer = requests.post(f"{server.url}/predict", json=body, timeout=120)
    assert answer.status_code == 200
    assert len(answer.json()["output_wav_b64"]) > 20_000


def test_hundreds_of_requests_are_refused_and_leave_nothing(server: Running) -> None:
    assert_well(server)
    before = [each.pid for each in processes(server)]
    send(server, 1, REQUESTS // 2)
    start = sizes(server)
    statuses = send(server, 0, REQUESTS)
    growth = [now - then for now, then in zip(sizes(server), start, strict=True)]
    assert max(growth) < GROWTH
    assert [each.pid for each in processes(server)] == before
    found = counts(server)
    assert found["etaflow_worker_restarts_total"] == 0
    assert found["etaflow_queue"] == 0
    assert_well(server)
    # Some of the damage is none: a file with other bytes may still be one.
    assert {status: statuses.count(status) > 10 for status in (400, 422)} == {400: True, 422: True}
    assert statuses.count(200) < 0.2 * REQUESTS
    log = server.log.read_bytes()
    assert b"convert: 422" in log
    assert MARK.encode() not in log
    assert base64_of(MARK.encode())[:12].encode() not in log
    assert b"UklGR" not in log  # the beginning of each WAV file in base64
    assert b"Traceback" not in log


PATHS = [
    "/../../etc/passwd",
    "/v1/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/convert/%00",
    "/file=/etc/passwd",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../config.json",
    "/static/../../../../etc/passwd",
    "/assets/..%2f..%2f..%2fetc/passwd",
    "//etc/passwd",
    "/" + "a" * 20_000,
    "/\u00ff\u00fe".encode("latin-1").decode("latin-1"),
    "/v1/health?x=" + "y" * 20_000,
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_lead_nowhere(server: Running, path: str, method: str) -> None:
    request = requests.Request(method, server.url).prepare()
    request.url = server.url + path  # as it is: the client would tidy it up
    with requests.Session() as session:
        answer = session.send(request, timeout=60, allow_redirects=False)
    assert answer.status_code < 500
    assert b"root:" not in answer.content
    assert b"etaflow-bundle" not in answer.content


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(server: Running, method: str, route: str) -> None:
    answer = requests.request(method, f"{server.url}{route}", data=b"{}", timeout=60)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json() == {"detail": f"{route} takes POST"}


def test_the_log_does_not_name_what_was_asked_for(server: Running) -> None:
    for path in (f"/{MARK}", f"/v1/convert?{MARK}", f"/v1/{MARK}"):
        requests.post(f"{server.url}{path}", data=MARK, headers={"X-Note": MARK}, timeout=60)
    assert MARK.encode() not in Path(server.log).read_bytes()

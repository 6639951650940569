"""Who may use a server, and addresses that it does not listen on without keys."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from etaflow.serve.server import ServeError, keys_of_environment
from etaflow.serve.server import serve as serve_bundle
from tests.serve_tools import Running, audio_file, base64_of, counts, free_port, serve, spoken
from tests.workflow_tools import environment

KEYS = ("first-key-4711", "zweiter-schlüssel", "third_key=with+signs/")
WANTED = "a key is needed, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
ROUTES = ("/predict", "/v1/convert", "/v1/analyze", "/v1/verify", "/v1/separate")


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETAFLOW_API_KEYS", raising=False)
    assert keys_of_environment() == ()
    monkeypatch.setenv("ETAFLOW_API_KEYS", " one,,two , ")
    assert keys_of_environment() == ("one", "two")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_no_other_address_without_keys(host: str) -> None:
    # Before anything is read: there is no such bundle.
    with pytest.raises(ServeError, match=r"set ETAFLOW_API_KEYS .*, or set `public: true`"):
        serve_bundle("nowhere", host, free_port())
    with pytest.raises(ServeError, match=r"host localhost: allowed are 127\.0\.0\.1, "):
        serve_bundle("nowhere", "localhost", free_port())


def test_no_address_of_one_interface() -> None:
    with pytest.raises(ServeError, match=r"host 192\.0\.2\.1: allowed are 127\.0\.0\.1, "):
        serve_bundle("nowhere", "192.0.2.1", free_port(), keys=["key"])


@pytest.mark.slow
@pytest.mark.parametrize("keys", [None, "", " , "])
def test_the_command_ends_before_it_listens(bundle: Path, tmp_path: Path, keys: str | None) -> None:
    variables = environment()
    variables.pop("ETAFLOW_API_KEYS", None)
    if keys is not None:
        variables["ETAFLOW_API_KEYS"] = keys
    command = [str(Path(sys.executable).with_name("etaflow")), "serve", "--bundle", str(bundle)]
    with socket.socket() as taken:
        # Held by this process: a server that tried to listen would say that it cannot.
        taken.bind(("0.0.0.0", 0))
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*command, "--host", "0.0.0.0", "--port", port],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: other machines can reach 0.0.0.0: set ETAFLOW_API_KEYS to one or several keys, "
        "with commas between; or listen on 127.0.0.1, or set `public: true` in the settings"
    ]


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Of a bundle that can convert and analyze only."""
    variables = {"ETAFLOW_API_KEYS": ", ".join(KEYS)}
    with serve(bundle, tmp_path_factory.mktemp("keys"), variables=variables) as running:
        yield running


def headers_of(key: str) -> list[dict[str, bytes]]:
    """Both ways to bring a key."""
    sent = key.encode()
    return [{"Authorization": b"Bearer " + sent}, {"X-API-Key": sent}]


def ask(
    server: Running, headers: dict[str, bytes], route: str = "/v1/convert"
) -> requests.Response:
    file = audio_file(spoken(0, 0.5))
    body = {"source": base64_of(file), "references": [base64_of(file)]}
    return requests.post(f"{server.url}{route}", json=body, headers=headers, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens(server: Running, key: str) -> None:
    for headers in headers_of(key):
        assert ask(server, headers).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_without_a_key_nothing_is_done(server: Running, route: str) -> None:
    before = counts(server, {"X-API-Key": KEYS[0]})
    wrong: list[dict[str, bytes]] = [{}, {"Authorization": b""}, {"Authorization": b"Bearer"}]
    for key in ("", "wrong", KEYS[0][:-1], KEYS[0] + "x", KEYS[0].upper(), ",".join(KEYS), "\xff"):
        wrong += headers_of(key)
    wrong += [
        {"Authorization": KEYS[0].encode()},
        {"Authorization": b"Basic " + base64_of(f":{KEYS[0]}".encode()).encode()},
        {"Cookie": f"key={KEYS[0]}".encode()},
        {"X-API-Key": b"wrong", "Authorization": b"Bearer " + KEYS[0].encode()},
    ]
    for headers in wrong:
        answer = ask(server, headers, route)
        assert (answer.status_code, answer.json()) == (401, {"detail": WANTED}), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = ask(server, {}, f"{route}?key={KEYS[0]}&api_key={KEYS[0]}")
    assert answer.status_code == 401
    after = counts(server, {"X-API-Key": KEYS[0]})
    asked = [name for name in after if name.startswith("etaflow_requests_total")]
    assert {name: after[name] for name in asked} == {name: before[name] for name in asked}


@pytest.mark.slow
def test_a_large_body_without_a_key_is_refused_as_such(server: Running) -> None:
    answer = requests.post(f"{server.url}/predict", data=bytes(12_000_000), timeout=60)
    assert (answer.status_code, answer.json()) == (401, {"detail": WANTED})


@pytest.mark.slow
def test_health_is_open_and_metrics_are_not(server: Running) -> None:
    assert server.health().status_code == 200
    assert requests.get(f"{server.url}/metrics", timeout=60).status_code == 401
    for headers in headers_of(KEYS[1]):
        assert requests.get(f"{server.url}/metrics", headers=headers, timeout=60).status_code == 200


@pytest.mark.slow
def test_tasks_without_a_model_are_not_found(server: Running) -> None:
    headers = headers_of(KEYS[0])[0]
    assert server.health().json()["tasks"].keys() == {"convert", "analyze"}
    for task in ("verify", "separate"):
        answer = ask(server, headers, f"/v1/{task}")
        told = {"detail": f"this server's bundle has no model to {task} with"}
        assert (answer.status_code, answer.json()) == (404, told)


@pytest.mark.slow
def test_keys_are_not_written_down(server: Running) -> None:
    for key in KEYS:
        for headers in headers_of(key):
            ask(server, headers)
        ask(server, {}, f"/v1/convert?key={key}")
        requests.get(f"{server.url}/{key}", timeout=60)
    log = server.log.read_bytes()
    assert b"convert: 200" in log
    for key in KEYS:
        assert key.encode() not in log

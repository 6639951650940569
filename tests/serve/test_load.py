"""Many clients at once, workers that die, and how a server ends."""

import ctypes
import io
import os
import signal
import socket
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from tests.serve_tools import (
    START_SECONDS,
    Running,
    audio_file,
    counts,
    lively_bundle,
    samples_of,
    serve,
    spoken,
    worker_processes,
)

pytestmark = pytest.mark.slow

CLIENTS = 50
# As in `test_http`; other requests differ by thousands of steps.
NOISE, OTHER = 1.5 / 2**15, 100 / 2**15
SETTINGS = {"timeout_seconds": 400.0, "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def full(folder: Path) -> Path:
    return lively_bundle(folder)


@pytest.fixture(scope="module")
def server(full: Path, folder: Path) -> Iterator[Running]:
    with serve(full, folder / "server", SETTINGS) as running:
        yield running


def convert(server: Running, files: list[bytes]) -> requests.Response:
    parts = [("source", files[0]), *(("references", file) for file in files[1:])]
    return requests.post(f"{server.url}/v1/convert", files=parts, timeout=600)


def pair(number: int, seconds: float = 0.5) -> list[bytes]:
    """The source and the reference of a client."""
    return [audio_file(spoken(2 * number + part, seconds)) for part in (0, 1)]


def until(reached: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait; an error if it is not so in time."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def ready(server: Running) -> bool:
    return server.health().status_code == 200


def kill(process: psutil.Process) -> None:
    """At once; the parent reaps it."""
    os.kill(process.pid, signal.SIGKILL)


def until_it_computes(worker: psutil.Process) -> None:
    """An idle one takes hardly any time of a core."""
    before = sum(worker.cpu_times()[:2])
    until(lambda: sum(worker.cpu_times()[:2]) > before + 0.3, "the worker computes")


def restarts(server: Running) -> float:
    return counts(server)["etaflow_worker_restarts_total"]


def test_each_of_many_clients_gets_its_own_answer(server: Running) -> None:
    sent = [pair(number) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda files: convert(server, files), sent))
    assert [each.status_code for each in answers] == [200] * CLIENTS
    alone = [convert(server, files) for files in sent]
    made, expected = (
        np.stack([samples_of(each.content)[0] for each in found]) for found in (answers, alone)
    )
    assert made.shape == (CLIENTS, 8_000)
    apart = np.abs(made[:, None] - expected[None]).max(axis=2)
    assert apart.diagonal().max() <= NOISE
    assert (apart + 2 * np.eye(CLIENTS)).min() > OTHER


def test_what_a_dead_worker_had_is_done_by_another(server: Running) -> None:
    sent = [pair(number, 6.0) for number in range(20)]  # they take seconds
    before = [samples_of(convert(server, files).content)[0] for files in sent]
    restarted = restarts(server)
    (worker,) = worker_processes(server)
    statuses: list[tuple[int, str]] = []
    stopped = Event()

    def look() -> None:
        while not stopped.wait(0.1):
            answer = server.health()
            statuses.append((answer.status_code, answer.json()["status"]))

    with ThreadPoolExecutor(21) as pool:
        looking = pool.submit(look)
        waiting = [pool.submit(convert, server, files) for files in sent]
        # It has taken some of them, and computes.
        until_it_computes(worker)
        assert not all(each.done() for each in waiting)
        kill(worker)
        answers = [each.result() for each in waiting]
        stopped.set()
        looking.result()
    assert [each.status_code for each in answers] == [200] * 20
    for answer, expected in zip(answers, before, strict=True):
        assert np.abs(samples_of(answer.content)[0] - expected).max() <= NOISE
    assert set(statuses) == {(200, "ok"), (503, "starting")}
    assert statuses[-1] == (200, "ok")
    assert restarts(server) == restarted + 1
    assert worker.pid not in [each.pid for each in worker_processes(server)]


def test_an_idle_worker_that_dies_is_replaced(server: Running) -> None:
    expected = convert(server, pair(0)).content
    restarted = restarts(server)
    (worker,) = worker_processes(server)
    kill(worker)
    answer = convert(server, pair(0))  # at once: before its death is known
    assert answer.status_code == 200
    assert np.abs(samples_of(answer.content)[0] - samples_of(expected)[0]).max() <= NOISE
    assert restarts(server) == restarted + 1


def test_a_request_that_ends_two_workers_is_given_up(server: Running) -> None:
    until(lambda: ready(server), "a worker is ready")
    restarted = restarts(server)
    # It is computed for much longer than a worker's death takes.
    long = [audio_file(spoken(seed, 55.0)) for seed in range(4)]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(convert, server, long)
        for died in range(2):
            until(
                lambda died=died: restarts(server) == restarted + died and ready(server),
                "the next worker is ready",
            )
            (worker,) = worker_processes(server)
            until_it_computes(worker)
            assert not waiting.done()
            kill(worker)
        answer = waiting.result()
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the server failed to compute this; its log says why"}
    assert "a job to convert ended 2 workers" in server.log.read_text(encoding="utf-8")
    assert convert(server, pair(0)).status_code == 200
    assert restarts(server) == restarted + 2


def test_a_request_under_way_is_answered_at_the_end(full: Path, folder: Path) -> None:
    with serve(full, folder / "ended", SETTINGS) as server, ThreadPoolExecutor(1) as pool:
        processes = family(server)
        files = [audio_file(spoken(0, 1.0)), audio_file(spoken(1, 1.0))]
        (worker,) = worker_processes(server)
        os.kill(worker.pid, signal.SIGSTOP)
        waiting = pool.submit(convert, server, files)
        until(lambda: counts(server)["etaflow_queue"] == 1, "the request has come in")
        end_by_another_thread(server.process.pid)
        until(lambda: not answers_more(server), "the server takes no more requests", 30)
        assert not waiting.done()
        os.kill(worker.pid, signal.SIGCONT)
        answer = waiting.result()
        assert answer.status_code == 200
        with wave.open(io.BytesIO(answer.content)) as file:
            assert file.getnframes() == 16_000
        assert server.process.wait(60) == 0
    until(lambda: not alive(processes), "all processes ended", 30)
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_a_server_without_its_queues_ends(full: Path, folder: Path) -> None:
    with serve(full, folder / "lost", SETTINGS) as server:
        processes = family(server)
        workers = {each.pid for each in worker_processes(server)}
        for process in processes:
            if process.pid not in workers:
                kill(process)
        assert server.process.wait(60) == 1
        until(lambda: not alive(processes), "all processes ended", 30)
    assert "the process that holds the queues died" in server.log.read_text(encoding="utf-8")


def test_what_a_killed_server_leaves_ends_by_itself(full: Path, folder: Path) -> None:
    with serve(full, folder / "killed", SETTINGS) as server:
        processes = family(server)
        assert len(processes) >= 3  # its worker, and those that hold the queues
        server.process.kill()
        server.process.wait()
        until(lambda: not alive(processes), "all processes ended", 30)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))


def end_by_another_thread(pid: int) -> None:
    """SIGTERM to a thread of a process that is not the main one, as the kernel may choose to."""
    threads = [thread.id for thread in psutil.Process(pid).threads() if thread.id != pid]
    assert ctypes.CDLL(None).tgkill(pid, threads[0], signal.SIGTERM) == 0


def family(server: Running) -> list[psutil.Process]:
    """The server's processes but itself."""
    found: list[Any] = psutil.Process(server.process.pid).children(recursive=True)
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [
        each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
    ]


def answers_more(server: Running) -> bool:
    """Whether new requests are answered."""
    try:
        requests.get(f"{server.url}/v1/health", timeout=0.5)
    except requests.RequestException:
        return False
    return True

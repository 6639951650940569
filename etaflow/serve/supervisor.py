"""LitServe's queues and processes, where a request outlives the worker that had it."""

import asyncio
import contextlib
import logging
import math
import os
import queue
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

import litserve
import uvicorn
from fastapi import FastAPI, HTTPException
from litserve.server import response_queue_to_buffer
from litserve.utils import LitAPIStatus, ResponseBufferItem, WorkerSetupStatus

from etaflow.serve.messages import Job, Outcome, Refused
from etaflow.serve.service import Service
from etaflow.serve.workers import Worker

log = logging.getLogger(__name__)

READY = WorkerSetupStatus.READY
ANSWERS = 0  # the number of the one queue of answers
ATTEMPTS = 2  # a job that ended as many workers is not given to a third
CHECK_SECONDS = 0.5  # between looks at the workers
LONGEST_PAUSE = 30.0  # before a worker is started again that died at its start
MAX_HEADER_BYTES = 65_536  # of a request
MAX_FOLDER_BYTES = 60  # of the temporary folder, for a socket in a folder in it
GRACE_SECONDS = 10  # for answers that are under way when the server is ended


class ServeError(RuntimeError):
    """A server that cannot be started, and what to do."""


@dataclass
class Asked:
    """A job that waits for its outcome."""

    job: Job
    at: float  # of `time.monotonic`
    waiting: ResponseBufferItem
    attempts: int = 1


class Ended(threading.Event):
    """That the server ends."""

    def __init__(self, holder: BaseProcess) -> None:
        """Nothing has ended yet; `holder` is the process that holds the queues."""
        super().__init__()
        self.holder = holder

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, and look up now and then: a signal that another thread gets wakes no wait.

        Raises:
            ServeError: the queues are lost.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set() and time.monotonic() < until:
            if not self.holder.is_alive():
                raise ServeError("the process that holds the queues died")
            time.sleep(CHECK_SECONDS)
        return self.is_set()


class HttpThread(threading.Thread):
    """The thread that answers requests, which LitServe ends as it would a process."""

    def __init__(
        self, server: uvicorn.Server, sockets: list[socket.socket], ended: Callable[[], None]
    ) -> None:
        super().__init__(name="http", daemon=True)
        self.server, self.sockets, self.ended = server, sockets, ended

    def run(self) -> None:
        """Answer until `terminate`, or until something is wrong."""
        try:
            self.server.run(sockets=self.sockets)
        finally:
            self.ended()

    def terminate(self) -> None:
        """Take no more requests, and end when the last is answered."""
        self.server.should_exit = True

    def kill(self) -> None:
        """End now."""
        self.server.force_exit = True


class Server(litserve.LitServer):
    """LitServe's queues and processes under the routes and the page of a service.

    HTTP is answered by a thread, so that requests, and who works on them, are known where workers
    are watched: of one that dies, the jobs go to another. LitServe's own watch would answer them
    with status 500, and forget those that were lost on the way.
    """

    def __init__(self, service: Service, gpus: int) -> None:
        """Prepare a server of a service.

        Args:
            service: what it does; its `ask` is set here.
            gpus: to compute on; 0 for the CPU.
        """
        settings = service.settings
        processes = settings.workers * max(1, gpus)
        super().__init__(
            Worker(service.bundle, settings, processes),
            accelerator="cuda" if gpus else "cpu",
            devices=gpus or 1,
            workers_per_device=settings.workers,
            timeout=settings.timeout_seconds,
            restart_workers=True,
        )
        self.service = service
        service.ask, service.ready = self.ask, self.ready
        self.uvicorn_graceful_timeout = GRACE_SECONDS
        self._asked: dict[str, Asked] = {}
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._ending = threading.Event()

    def register_endpoints(self) -> None:
        """None of LitServe's: they take any JSON, and answer what is wrong with it by 500."""

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Carry answers from the workers to those who wait for them."""
        # LitServe's own starts a server of another protocol, too, where its package is installed.
        self._event_loop = asyncio.get_running_loop()
        answers = asyncio.create_task(
            response_queue_to_buffer(
                *(self._transport, self.response_buffer, ANSWERS),
                self.litapi_connector,
            )
        )
        try:
            yield
        finally:
            answers.cancel()
            await asyncio.wait([answers], timeout=1.0)

    def ready(self) -> bool:
        """Whether some worker has its models loaded."""
        try:
            return READY in self.workers_setup_status.values()
        except (EOFError, OSError):
            return False

    async def ask(self, job: Job) -> Outcome:
        """Have a job done.

        Raises:
            Refused: 408, it took too long; 503, there was no worker in all that time.
        """
        uid = str(uuid.uuid4())
        asked = Asked(job, time.monotonic(), ResponseBufferItem(asyncio.Event()))
        self._asked[uid], self.response_buffer[uid] = asked, asked.waiting
        try:
            async with asyncio.timeout(self.service.settings.timeout_seconds):
                await asyncio.to_thread(self._put, uid, asked)
                await asked.waiting.event.wait()
                outcome, status = asked.waiting.response
                if isinstance(outcome, HTTPException):  # a worker found that it waited too long
                    raise TimeoutError
        except TimeoutError as error:
            if not self.ready():
                raise Refused(503, "no worker is ready", retry_after=5) from error
            raise Refused(
                408,
                f"not done within {self.service.settings.timeout_seconds:g} s: send less, or try "
                "again when there is less to do",
            ) from error
        finally:
            del self._asked[uid], self.response_buffer[uid]
        return outcome if status == LitAPIStatus.OK else Outcome(failed=True)

    def _put(self, uid: str, asked: Asked) -> None:
        jobs = self.litapi_request_queues[self.lit_api.api_path]
        jobs.put((ANSWERS, uid, asked.at, asked.job))

    def _init_manager(self, num_api_servers: int) -> Any:
        # The queues are reached by a socket in the temporary folder, and its path may have only 107
        # bytes, which that of a job on a cluster exceeds.
        usual = tempfile.tempdir
        if len(os.fsencode(tempfile.gettempdir())) > MAX_FOLDER_BYTES:
            tempfile.tempdir = "/tmp"
        try:
            manager = super()._init_manager(num_api_servers)
        finally:
            tempfile.tempdir = usual
        self.lit_api.loop.manager = manager._process.pid
        # LitServe's is for HTTP servers in processes of their own.
        self._shutdown_event = Ended(manager._process)
        return manager

    def verify_worker_status(self) -> None:
        """Wait for the first worker that is ready.

        Raises:
            ServeError: all died.
        """
        while not self.ready():
            if not any(process.is_alive() for process in self.inference_workers):
                raise ServeError("no worker could start")
            time.sleep(0.05)

    def _start_server(
        self,
        port: int,
        num_uvicorn_servers: int,
        log_level: str,
        sockets: list[socket.socket],
        uvicorn_worker_type: str,
        **kwargs: Any,
    ) -> dict[int, HttpThread]:
        self.app.response_queue_id = ANSWERS
        config = uvicorn.Config(
            self.app,
            log_level=log_level,
            access_log=False,
            # httptools, which is faster at what takes no time here, takes headers without end.
            http="h11",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            **kwargs,
        )
        thread = HttpThread(uvicorn.Server(config), sockets, self._http_ended)
        thread.start()
        return {0: thread}

    def _http_ended(self) -> None:
        self._shutdown_event.set()

    def _start_worker_monitoring(self, manager: Any, uvicorn_workers: Any) -> None:
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        """Start dead workers anew, and give their jobs to the living."""
        pauses = [0.0] * len(self.inference_workers)
        started = [0.0] * len(self.inference_workers)
        while not self._ending.wait(CHECK_SECONDS):
            for number, process in enumerate(self.inference_workers):
                if process.is_alive() or time.monotonic() < started[number] + pauses[number]:
                    continue
                started[number] = time.monotonic()
                try:
                    was_ready = self.workers_setup_status.get(f"job_{number}") == READY
                    pauses[number] = 0 if was_ready else min(LONGEST_PAUSE, 2 * pauses[number] + 1)
                    self._replace(number)
                except Exception:  # of the system, which may have no memory for a process
                    log.exception("worker %d could not be started", number)

    def _replace(self, number: int) -> None:
        code = self.inference_workers[number].exitcode
        log.warning("worker %d died (exit code %s); starting another", number, code)
        self.service.measures.restarts.inc()
        worker = self.launch_single_inference_worker(self.lit_api, number)
        self.inference_workers[number] = worker
        self._give_again(number)

    def _give_again(self, dead: int) -> None:
        """Put the jobs of a dead worker back, and those that nobody is known to have."""
        pending = self.litapi_request_queues[self.lit_api.api_path]
        # The queue is emptied first: what it holds is among those that nobody has.
        with contextlib.suppress(queue.Empty):
            while True:
                pending.get_nowait()
        for uid, asked in list(self._asked.items()):
            if asked.waiting.worker_id not in (None, dead) or asked.waiting.event.is_set():
                continue
            if asked.waiting.worker_id == dead:
                asked.attempts += 1
            if asked.attempts > ATTEMPTS:
                log.error("a job to %s ended %d workers", asked.job.task, ATTEMPTS)
                asked.waiting.response = (Outcome(failed=True), LitAPIStatus.OK)
                if self._event_loop is not None:
                    self._event_loop.call_soon_threadsafe(asked.waiting.event.set)
            else:
                asked.waiting.worker_id = None
                asked.job = replace(asked.job, alone=asked.attempts > 1)
                self._put(uid, asked)

    def _end_streams(self) -> None:
        for task in self.service.streams:
            task.cancel()

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, HttpThread], shutdown_reason: str = ""
    ) -> None:
        self._ending.set()
        if self._event_loop is not None:
            with contextlib.suppress(RuntimeError):  # it is over already
                self._event_loop.call_soon_threadsafe(self._end_streams)
        # First the requests under way: LitServe would cut off their answers.
        for thread in uvicorn_workers.values():
            thread.terminate()
            thread.join(GRACE_SECONDS + 1)
        super()._perform_graceful_shutdown(manager, {}, shutdown_reason)

"""The processes that compute: LitServe starts them and hands them batches of jobs."""

import contextlib
import os
import queue
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import litserve
from litserve.loops.simple_loops import BatchedLoop
from litserve.utils import LitAPIStatus, LoopResponseType

from etaflow.serve.bundle import ServedBundle
from etaflow.serve.messages import Job, Outcome
from etaflow.serve.settings import Settings

if TYPE_CHECKING:
    from etaflow.serve.engine import Engine

QUEUE = "/job"  # LitServe's name for the queue of jobs; no route has it


class Gathering(BatchedLoop):
    """LitServe's loop over batches, which otherwise looks for jobs a thousand times a second."""

    manager: int = 0  # the process that holds the queues
    _held: Any = None  # a job to be done alone, met while others were gathered

    def get_batch_requests(
        self, lit_api: litserve.LitAPI, request_queue: Any, transport: Any
    ) -> tuple[list[Any], list[Any]]:
        """Wait for a job, and then a little for others.

        Returns:
            (number of the answers' queue, id, job) of each; and of those without the job that
            waited so long that nobody waits for their answer.
        """
        jobs: list[Any] = []
        late: list[Any] = []
        until = time.monotonic() + 1.0
        while len(jobs) < lit_api.max_batch_size and not (jobs and jobs[-1][2].alone):
            found = self._next(request_queue, max(0.001, until - time.monotonic()))
            if found is None:
                break
            number, uid, asked, job = found
            if jobs and job.alone:
                self._held = found
                break
            # So that the server knows who has it, should this process die.
            start = ((), LitAPIStatus.START, LoopResponseType.REGULAR)
            self.put_response(transport, number, uid, *start)
            if time.monotonic() - asked > lit_api.request_timeout:
                late.append((number, uid))
                continue
            if not jobs:
                until = time.monotonic() + lit_api.batch_timeout
            jobs.append((number, uid, job))
        if os.getppid() != self._server_pid:
            self._end()
        return jobs, late

    def _next(self, request_queue: Any, seconds: float) -> Any:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            return request_queue.get(timeout=seconds)
        except queue.Empty:
            return None
        except (EOFError, OSError):
            self._end()

    def _end(self) -> NoReturn:
        """The server is gone, without a word to its processes: end with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.manager, signal.SIGTERM)
        os._exit(0)


class Worker(litserve.LitAPI):
    """What LitServe calls in each process: load the models, do batches of jobs."""

    def __init__(self, bundle: ServedBundle, settings: Settings, processes: int) -> None:
        """Describe the processes to start.

        Args:
            bundle: whose models are loaded.
            settings: of batches, threads and the cache.
            processes: that compute, on all devices.
        """
        super().__init__(
            max_batch_size=settings.batch,
            batch_timeout=settings.batch_wait_seconds,
            api_path=QUEUE,
            loop=Gathering(),
        )
        self.folder: Path = bundle.folder
        self.tasks: Sequence[str] = tuple(bundle.weights)
        self.room = int(settings.cache_mb * 1e6)
        self.threads = settings.threads or max(1, (os.cpu_count() or 1) // processes)
        self.engine: Engine | None = None

    def setup(self, device: str) -> None:
        """Load the models; what is wrong with them is said, and ends the process."""
        # The server ends its workers; a Ctrl-C in the terminal is sent to all of them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            import torch

            from etaflow.device import select_device
            from etaflow.serve.engine import Engine

            torch.set_num_threads(self.threads)
            select_device(0 if device == "cpu" else 1)
            self.engine = Engine(self.folder, self.tasks, torch.device(device), self.room)
        except (ValueError, RuntimeError, OSError) as error:
            print(f"error: a worker cannot start: {error}", file=sys.stderr, flush=True)
            sys.exit(1)

    def predict(self, x: list[Job]) -> list[Outcome]:
        """Do the jobs of a batch."""
        assert self.engine is not None
        return self.engine.run(x)

"""The tasks of a server, whoever asks: routes of the API and the page call the same functions."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from etaflow.serve.bundle import ServedBundle
from etaflow.serve.incoming import check
from etaflow.serve.measures import Measures
from etaflow.serve.messages import MAX_TOPK, Audio, Job, Outcome, Recording, Refused
from etaflow.serve.settings import Settings

log = logging.getLogger(__name__)

DECODERS = 2  # threads; those of asyncio carry jobs and answers

Ask = Callable[[Job], Awaitable[Outcome]]


class Service:
    """Checks what is asked, has a worker do it, and counts it.

    Attributes:
        bundle: what is served.
        settings: what is allowed.
        measures: what is counted.
        ask: has a job done by a worker; the server sets it.
        ready: whether there is a worker; the server sets it.
        streams: tasks that last as long as some page is open.
    """

    def __init__(self, bundle: ServedBundle, settings: Settings) -> None:
        self.bundle, self.settings = bundle, settings
        self.measures = Measures()
        self.ask: Ask = _no_worker
        self.ready: Callable[[], bool] = lambda: False
        self.streams: set[asyncio.Task[Any]] = set()
        self._inside = 0
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")

    @contextmanager
    def place(self, task: str) -> Iterator[None]:
        """A place for a request, from before its body is read until it is answered.

        Raises:
            Refused: 429, there are as many requests as are allowed at a time; 404, the bundle has
                no model for this task.
        """
        started = time.monotonic()
        status = 200
        try:
            if task not in self.bundle.weights:
                raise Refused(404, f"this server's bundle has no model to {task} with")
            if self._inside >= self.settings.max_requests:
                raise Refused(
                    429,
                    f"{self._inside} requests are being answered, and no more are taken in at a "
                    "time; try again in some seconds",
                    retry_after=2,
                )
            self._inside += 1
            self.measures.inside.set(self._inside)
            try:
                yield
            finally:
                self._inside -= 1
                self.measures.inside.set(self._inside)
        except Refused as error:
            status = error.status
            raise
        except HTTPException as error:  # of a body
            status = error.status_code
            raise
        except (asyncio.CancelledError, ClientDisconnect):
            status = 499  # whoever asked is gone
            raise
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.monotonic() - started
            self.measures.answered(task, status, seconds)
            log.info("%s: %d after %.3f s", task, status, seconds)

    async def convert(
        self,
        source: bytes,
        references: Sequence[bytes],
        method: str | None = None,
        topk: int = 4,
    ) -> Audio:
        """Say the source in the voice of the references.

        The waveform is as long as the source and as loud as `VoiceConverter.convert` makes it, or,
        where it would clip, has a peak of 1.

        Args:
            source: a file's bytes: WAV, FLAC, Ogg or MP3.
            references: of each the same; may be none for the method copy.
            method: one of the bundle's; None: its default.
            topk: neighbours a frame.

        Raises:
            Refused: 422, a recording or an argument cannot be used; 408, it took too long; 500 or
                503, a worker failed.
        """
        method = self.bundle.method if method is None else method
        if method not in self.bundle.methods:
            raise Refused(
                422, f"method {method[:50]!r}: this bundle has {', '.join(self.bundle.methods)}"
            )
        if not 1 <= topk <= MAX_TOPK:
            raise Refused(422, f"topk {topk}: it is 1 to {MAX_TOPK}")
        if not references and method != "copy":
            raise Refused(422, f"{method} needs a reference, and there is none")
        if len(references) > self.settings.max_references:
            raise Refused(
                422,
                f"{len(references)} references; at most {self.settings.max_references} are taken",
            )
        names = ["the source", *(f"reference {n}" for n in range(1, len(references) + 1))]
        recordings = await self._check(names, [source, *references])
        audio = (await self._outcome(Job("convert", recordings, method, topk))).audio
        assert audio is not None
        return audio

    async def analyze(self, recording: bytes) -> dict[str, Any]:
        """What `etaflow.analysis.Analysis.measures` says of a recording; see `convert`."""
        recordings = await self._check(["the recording"], [recording])
        return dict((await self._outcome(Job("analyze", recordings))).facts)

    async def verify(self, one: bytes, other: bytes) -> dict[str, Any]:
        """Whether two recordings are of one speaker.

        Returns:
            `same_speaker`, `score`, `unit`, `threshold`, `system`, `trials`: see
            `etaflow.verification.verifier`.
        """
        recordings = await self._check(["one", "other"], [one, other])
        return dict((await self._outcome(Job("verify", recordings))).facts)

    async def separate(self, mixture: bytes) -> Audio:
        """The speakers of a mixture, at its rate and of its length, at no particular level."""
        recordings = await self._check(["the mixture"], [mixture])
        audio = (await self._outcome(Job("separate", recordings))).audio
        assert audio is not None
        return audio

    async def _check(self, names: Sequence[str], files: Sequence[bytes]) -> tuple[Recording, ...]:
        """Check files in threads of their own, so that others are answered meanwhile."""
        loop, longest = asyncio.get_running_loop(), self.settings.max_seconds
        return tuple(
            [
                await loop.run_in_executor(self._decoders, check, name, file, longest)
                for name, file in zip(names, files, strict=True)
            ]
        )

    async def _outcome(self, job: Job) -> Outcome:
        sizes = ", ".join(f"{each.seconds:.2f} s ({each.digest})" for each in job.recordings)
        log.info("%s of %s", job.task, sizes)
        outcome = await self.ask(job)
        if outcome.refused is not None:
            raise Refused(422, outcome.refused)
        if outcome.failed:
            raise Refused(500, "the server failed to compute this; its log says why")
        return outcome


async def _no_worker(job: Job) -> Outcome:
    raise Refused(503, "no worker is ready yet", retry_after=5)

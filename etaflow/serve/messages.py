"""What the process that answers requests and those that compute say to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from etaflow.audio import Waveform

MAX_TOPK = 32  # neighbours a frame; each takes the memory of the matched frames once more


class Refused(Exception):
    """A request that is not answered as it was asked: an HTTP status, and why in words."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after


@dataclass(frozen=True)
class Recording:
    """A recording as it was sent, which takes less room than its samples, and facts on it."""

    file: bytes
    rate: int  # Hz
    num_samples: int  # a channel
    digest: str  # of the samples and the rate

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.num_samples / self.rate


@dataclass(frozen=True)
class Job:
    """A task for a worker: `convert` (source, then references), `analyze`, `verify`, `separate`."""

    task: str
    recordings: tuple[Recording, ...]
    method: str = ""
    topk: int = 0
    alone: bool = False  # not computed together with others: it, or one of them, ended a worker


@dataclass(frozen=True)
class Audio:
    """Waveforms (T,) at one rate, Hz, with float samples that may lie beyond [-1, 1]."""

    waveforms: tuple[Waveform, ...]
    rate: int


@dataclass(frozen=True)
class Outcome:
    """What came of a job: audio or facts; or, of one that cannot be done, why."""

    audio: Audio | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None
    failed: bool = False  # by no fault of the request

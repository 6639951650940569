"""What jobs are made of: the form in which it is said, and what it is counted in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etaflow.planning.speech import UNKNOWN, Corpus, Speech, corpora_of

HOURS = "h of speech"


@dataclass(frozen=True)
class Amount:
    """What a job is made of.

    Attributes:
        value: in `unit`; None if it is not known.
        unit: that its time is counted in.
        variant: what else its time depends on.
        source: of the value, or why there is none.
        at_most: whether the job may end, or be, with less.
        written: bytes on disk, computed from formats; None if it is not known or of no account.
    """

    value: float | None
    unit: str = "job"
    variant: str = ""
    source: str = ""
    at_most: bool = False
    written: float | None = None


class Study:
    """A validated config, and how much speech its corpora have."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Look for the manifests of the run in the current folder."""
        self.config = config
        self.corpora: dict[str, Corpus] = corpora_of(config)
        self._whole: dict[tuple[str, str | None], Speech] = {}

    def whole(self, corpus: str, split: str | None = None) -> Speech:
        """The speech of a corpus or of a side of its split; counted once."""
        if (corpus, split) not in self._whole:
            self._whole[corpus, split] = self.corpora[corpus].whole(split)
        return self._whole[corpus, split]


def of_speech(speech: Speech, variant: str, bytes_an_hour: float | None = None) -> Amount:
    """Hours of speech, and what is written of them."""
    written = None
    if speech.hours is not None and bytes_an_hour is not None:
        written = speech.hours * bytes_an_hour
    return Amount(speech.hours, HOURS, variant, speech.source, written=written)


def of_utterances(speech: Speech, bytes_each: float | None = None) -> Amount:
    """Utterances, and what is written of them."""
    count = speech.utterances
    written = None if count is None or bytes_each is None else count * bytes_each
    source = speech.source if count is not None else UNKNOWN
    return Amount(count, "utterances", "", source, written=written)

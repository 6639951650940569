"""What trainings read: waveforms kept in memory, and random crops of them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from etaflow.audio import SAMPLE_RATE, Waveform, read_unchanged

CACHE_BYTES = 1 << 30  # 4.7 hours of 16 kHz float32, a process


class Waveforms:
    """Waveforms of utterances at one rate, kept in memory until `cache_bytes` are full.

    Nothing is thrown out of a full cache: in a shuffled epoch the oldest is as likely to be asked
    for as any.
    """

    def __init__(
        self,
        files: Mapping[str, tuple[str | Path, str]],
        sample_rate: int = SAMPLE_RATE,
        cache_bytes: int = CACHE_BYTES,
        read: Callable[[str | Path, str, int], Waveform] = read_unchanged,
    ) -> None:
        """Read these files, each with the checksum that it had when it was listed, by utterance id.

        `read` takes path, checksum and rate, and names what to do about a file that changed.
        """
        self.sample_rate = sample_rate
        self._files, self._room, self._read = files, cache_bytes, read
        self._cache: dict[str, Waveform] = {}

    def read(self, utterance_id: str) -> Waveform:
        """The whole waveform (T,) of an utterance.

        Raises:
            AudioError: the file changed, or cannot be read.
        """
        if utterance_id in self._cache:
            return self._cache[utterance_id]
        waveform = self._read(*self._files[utterance_id], self.sample_rate)
        if waveform.nbytes <= self._room:
            self._cache[utterance_id] = waveform
            self._room -= waveform.nbytes
        return waveform


def random_crop(waveform: Waveform, size: int, generator: np.random.Generator) -> Waveform:
    """`size` samples of a waveform (T,) from a drawn place on.

    One that is shorter is repeated end to end until it fills the crop, as wespeaker and SpeechBrain
    do: a network would learn of zeros how long an utterance was.
    """
    if len(waveform) < size:
        waveform = np.resize(waveform, size)
    start = int(generator.integers(len(waveform) - size + 1))
    return waveform[start : start + size]

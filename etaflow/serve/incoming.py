"""Recordings that came from outside, checked in memory and within limits."""

import hashlib
from collections.abc import Iterator

import numpy as np

from etaflow.audio import (
    BLOCK,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    MIN_SECONDS,
    SILENCE_PEAK,
    Waveform,
)
from etaflow.decoding import AudioError, Sound, open_bytes
from etaflow.serve.messages import Recording, Refused

MAX_CHANNELS = 8
FORMATS = "WAV, FLAC, Ogg and MP3"


def _is_known(head: bytes) -> bool:
    """Whether a file begins like one of the formats taken: libsndfile would try thirty."""
    if head[:4] in (b"RIFF", b"RF64"):
        return head[8:12] == b"WAVE"
    mpeg = head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return mpeg or head.startswith((b"fLaC", b"OggS", b"ID3"))


def check(name: str, file: bytes, max_seconds: float) -> Recording:
    """Decode a file's bytes, block by block and no further than is allowed, and say what it is.

    Args:
        name: of the recording, for errors.
        file: WAV, FLAC, Ogg (Vorbis, Opus) or MP3, of 8 to 96 kHz and up to 8 channels.
        max_seconds: what it may last; by its header, and by what is decoded.

    Raises:
        Refused: 422; it is empty, no such file, damaged, truncated, silent (under -80 dBFS),
            shorter than 0.1 s, too long, or has NaN or infinite samples.
    """
    if not file:
        raise Refused(422, f"{name} is empty")
    if len(file) < 12 or not _is_known(file[:12]):
        raise Refused(422, f"{name} is no audio file that is taken here: {FORMATS} are")
    count, peak = 0, 0.0
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_bytes(file, name) as sound:
            rate = sound.rate
            if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
                raise Refused(422, f"{name}: sampling rate of {rate} Hz is outside 8 to 96 kHz")
            if sound.channels > MAX_CHANNELS:
                raise Refused(422, f"{name}: {sound.channels} channels; at most {MAX_CHANNELS}")
            longest = int(max_seconds * rate)
            if sound.promised is not None and sound.promised > longest:
                raise _too_long(name, sound.promised / rate, max_seconds)
            for block in _mono(sound):
                count += len(block)
                if count > longest:
                    raise _too_long(name, count / rate, max_seconds)
                peak = max(peak, float(np.abs(block).max()))
                digest.update(block.data)
    except AudioError as error:
        raise Refused(422, f"{name}: {error.reason}") from error
    if count < MIN_SECONDS * rate:
        raise Refused(422, f"{name} is shorter than {MIN_SECONDS} s ({count / rate:.3f} s)")
    if peak < SILENCE_PEAK:
        raise Refused(422, f"{name} is silent: its mono signal never exceeds -80 dBFS")
    digest.update(rate.to_bytes(4, "big"))
    return Recording(file, rate, count, digest.hexdigest())


def read(recording: Recording) -> Waveform:
    """The samples (T,) of a recording that was checked: mono, at its own rate."""
    with open_bytes(recording.file, "a recording") as sound:
        return np.concatenate(list(_mono(sound)))


def _mono(sound: Sound) -> Iterator[Waveform]:
    for block in sound.blocks(BLOCK // MAX_CHANNELS):
        yield block.mean(axis=1, dtype=np.float32)


def _too_long(name: str, seconds: float, allowed: float) -> Refused:
    return Refused(422, f"{name} has {seconds:.1f} s or more; at most {allowed:g} s are taken")

"""Opening audio files: one way for what libsndfile reads, and for M4A, which PyAV decodes."""

import io
import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

Samples = npt.NDArray[np.float32]

M4A = ".m4a"
UNKNOWN = (1 << 63) - 1  # libsndfile's number of samples for a FLAC file that does not tell
TOLERANCE = 0.05  # s that a header may round up; a packet of 16 kHz has 0.064 s


class AudioError(ValueError):
    """A file that cannot be used; `reason` says why, without the path."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)  # as given, so that the error can leave a worker process
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.reason}"


@dataclass(frozen=True)
class Sound:
    """An audio file that is open."""

    path: Path | str  # or the name of a stream, for errors
    rate: int  # Hz
    channels: int
    promised: int | None  # samples a channel, where the header tells
    decode: Callable[[int], Iterator[Samples]]

    def blocks(self, size: int) -> Iterator[Samples]:
        """Decode the file, once: (size, channels) at a time, the last block may be shorter.

        Raises:
            AudioError: a block is damaged or has NaN or infinite samples, or, at the end, there
                were no samples, or fewer than promised.
        """
        count = 0
        for block in self.decode(size):
            if not np.isfinite(block).all():
                raise AudioError(self.path, "NaN or infinite samples")
            count += len(block)
            yield block
        if count == 0:
            raise AudioError(self.path, "no samples")
        if self.promised is not None and count < self.promised:
            reason = f"truncated: {count} of {self.promised} samples could be decoded"
            raise AudioError(self.path, reason)


@contextmanager
def open_audio(path: str | Path) -> Iterator[Sound]:
    """Open a file; its suffix tells M4A from the formats that libsndfile knows by their content.

    Raises:
        AudioError: the file is missing, empty, unreadable or truncated; also for what is raised
            by the reading of its blocks.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise AudioError(path, "empty file")
        if path.suffix.lower() == M4A:
            with _open_m4a(path) as sound:
                yield sound
        else:
            with path.open("rb") as stream:
                truncated = _is_truncated(stream)
            with _open_soundfile(path, path, truncated) as sound:
                yield sound
    except OSError as error:
        raise AudioError(path, f"unreadable: {error.strerror or error}") from error


@contextmanager
def open_bytes(file: bytes, name: str) -> Iterator[Sound]:
    """Open a file that lies in memory, in a format that libsndfile knows by its content.

    Raises:
        AudioError: as `open_audio`; with the name instead of a path.
    """
    stream = io.BytesIO(file)
    truncated = _is_truncated(stream)
    stream.seek(0)
    with _open_soundfile(stream, name, truncated) as sound:
        yield sound


@contextmanager
def _open_soundfile(source: Path | BinaryIO, name: Path | str, truncated: bool) -> Iterator[Sound]:
    if truncated:
        raise AudioError(name, "truncated: the header promises more samples than the file has")
    try:
        with soundfile.SoundFile(source) as sound:

            def decode(size: int) -> Iterator[Samples]:
                # Not `sound.blocks`: where data ends early, it yields what its buffer held before.
                while len(block := sound.read(size, dtype="float32", always_2d=True)):
                    yield block

            if sound.frames == UNKNOWN:
                # It cannot be read in blocks: libsndfile fails to seek in it.
                reason = "its header does not tell its length, as of a stream; write the file again"
                raise AudioError(name, reason)
            yield Sound(name, sound.samplerate, sound.channels, sound.frames, decode)
    except soundfile.LibsndfileError as error:
        raise AudioError(name, f"unreadable: {error.error_string}") from error


def _is_truncated(stream: BinaryIO) -> bool:
    """Whether a WAV or AIFF file promises more data than it has; libsndfile reads such gladly."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        data, order = b"data", "<I"
    elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        data, order = b"SSND", ">I"
    else:
        return False
    while len(chunk := stream.read(8)) == 8:
        name, length = chunk[:4], struct.unpack(order, chunk[4:])[0]
        if name == data:
            # 0 and 2^32 - 1 stand for "unknown" in files that were streamed.
            return length not in (0, 0xFFFFFFFF) and stream.tell() + length > size
        stream.seek(length + length % 2, 1)
    return False


@contextmanager
def _open_m4a(path: Path) -> Iterator[Sound]:
    """Open the first audio stream of an MP4 file (AAC or ALAC).

    The samples before the recording (the encoder's delay, told by an edit list) are left out by
    FFmpeg. Those after it, with which the encoder filled its last frame, are left out here; the
    ffmpeg program writes them, up to 1023. Fragments without an index (`sidx`) do not tell how
    many there are: where such a file ends between two of them, it counts as whole.
    """
    # Imported here: it brings FFmpeg's libraries, and few corpora are M4A.
    import av

    _check_boxes(path)
    try:
        # Absolute, for FFmpeg takes a name with a colon for a protocol. A format that is named is
        # not guessed: a playlist under another name would be followed.
        with av.open(
            str(path.absolute()), "r", format="mov", metadata_errors="replace"
        ) as container:
            if not container.streams.audio:
                raise AudioError(path, "no audio stream")
            frames = _decode_frames(path, container, container.streams.audio[0])
            # Of AAC with band replication, the header may tell half the rate.
            first = next(frames, None)
            if first is None:
                raise AudioError(path, "no samples")
            samples = _convert_frames(path, itertools.chain([first], frames))
            rate, channels = first.sample_rate, first.layout.nb_channels
            yield Sound(path, rate, channels, None, lambda size: _regroup(samples, size))
    except av.FFmpegError as error:
        raise AudioError(path, f"unreadable: {error.strerror}") from error


def _boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int | None]]:
    """The outermost boxes of an MP4 file: name, and where each ends (None: with the file)."""
    start = 0
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if length == 1:
            length = int.from_bytes(stream.read(8), "big")
        yield name, start + length if length else None
        if length < 8:
            return
        start = stream.seek(start + length)


def _check_boxes(path: Path) -> None:
    """Raise `AudioError` for an MP4 file that is cut: FFmpeg reads some of these gladly."""
    size, names = path.stat().st_size, set()
    with path.open("rb") as stream:
        for name, end in _boxes(stream):
            names.add(name)
            # Not others: what follows the recording may be anything.
            if name in (b"moov", b"moof", b"mdat") and end is not None and end > size:
                raise AudioError(path, "truncated: a box promises more data than the file has")
    if b"ftyp" in names and b"moov" not in names:
        raise AudioError(path, "truncated: the index (moov) is missing, which ends most files")


def _decode_frames(
    path: Path, container: "InputContainer", stream: "AudioStream"
) -> Iterator["AudioFrame"]:
    import av

    base = stream.time_base or Fraction(0)
    promised = float((stream.duration or 0) * base) if stream.frames == 0 else 0.0
    packets, end = 0, 0.0
    for packet in container.demux(stream):
        packets += packet.size > 0  # one without data, at the end, calls for what is left
        end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * base))
        try:
            if packet.is_corrupt:
                raise AudioError(path, f"truncated: the data end within packet {packets}")
            yield from packet.decode()
        except av.FFmpegError as error:
            reason = f"damaged: packet {packets} cannot be decoded ({error.strerror})"
            raise AudioError(path, reason) from error
    indexed = len(stream.index_entries)
    if packets < indexed:
        raise AudioError(path, f"truncated: {packets} of {indexed} packets could be read")
    # A file in fragments has no index of all packets, but may tell its duration.
    if end < promised - TOLERANCE:
        raise AudioError(path, f"truncated: {end:.2f} of {promised:.2f} s could be read")


def _convert_frames(path: Path, frames: Iterator["AudioFrame"]) -> Iterator[Samples]:
    """Frames as samples (n, channels); the last is cut to the duration that its packet has."""
    import av

    to_float = av.AudioResampler(format="fltp")
    made = None
    for frame, following in itertools.pairwise(itertools.chain(frames, [None])):
        assert frame is not None
        made = made or (frame.sample_rate, frame.layout.name)
        if (frame.sample_rate, frame.layout.name) != made:
            raise AudioError(path, "the sampling rate or the channels change within the file")
        size = frame.samples
        if following is None and frame.duration and frame.time_base:
            size = min(size, round(frame.duration * frame.time_base * frame.sample_rate))
        parts = [part.to_ndarray() for part in to_float.resample(frame)]
        yield np.concatenate(parts, axis=1, dtype=np.float32).T[:size]


def _regroup(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Pieces (n, channels) of any length as blocks of `size`; the last may be shorter."""
    waiting: list[Samples] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= size:
            joined = np.concatenate(waiting)
            whole = count - count % size
            yield from np.split(joined[:whole], whole // size)
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)

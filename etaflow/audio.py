"""Reading, checking, resampling and writing audio.

Waveforms are mono float32 numpy arrays (T,) in [-1, 1] at `SAMPLE_RATE` unless said otherwise.
"""

import hashlib
import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from etaflow.atomic import atomic_file
from etaflow.decoding import M4A, AudioError, open_audio

Waveform = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.1
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8_000, 96_000
SILENCE_PEAK = 1e-4  # -80 dBFS: three steps of 16-bit audio
WRITABLE = (".wav", ".flac")
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", M4A)
BLOCK = 1 << 18  # samples of a file that are decoded, resampled or written at a time


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a file that was opened, decoded and found usable."""

    num_samples: int
    sample_rate: int
    checksum: str  # BLAKE2b-64 of the file's bytes, hexadecimal


def file_checksum(path: str | Path) -> str:
    """BLAKE2b-64 of a file's bytes, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def check_audio(path: str | Path) -> AudioInfo:
    """Open and decode a whole file, in blocks, and say what it is.

    Raises:
        AudioError: the file is missing, empty, unreadable, truncated, silent (peak under
            -80 dBFS), shorter than 0.1 s, has NaN or infinite samples, or a rate outside
            8 to 96 kHz.
    """
    count, peak = 0, 0.0
    with open_audio(path) as sound:
        rate = sound.rate
        for block in sound.blocks(BLOCK):
            count += len(block)
            peak = max(peak, float(np.abs(block.mean(axis=1)).max()))
        checksum = file_checksum(path)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(path, f"sampling rate of {rate} Hz is outside 8 to 96 kHz")
    if count < MIN_SECONDS * rate:
        raise AudioError(path, f"shorter than {MIN_SECONDS} s ({count / rate:.3f} s)")
    if peak < SILENCE_PEAK:
        raise AudioError(path, "silent: the mono signal never exceeds -80 dBFS")
    return AudioInfo(count, rate, checksum)


def resampled_length(num_samples: int, source_rate: int, target_rate: int = SAMPLE_RATE) -> int:
    """Samples that `resample` makes of `num_samples`."""
    return -(-num_samples * target_rate // source_rate)


def resample(waveform: Waveform, source_rate: int, target_rate: int) -> Waveform:
    """Resample (T,) by windowed-sinc interpolation (torchaudio's default filter)."""
    if source_rate == target_rate:
        return waveform
    # Imported here: programs that only check files need not wait for torch.
    import torch
    import torchaudio.functional

    tensor = torchaudio.functional.resample(torch.from_numpy(waveform), source_rate, target_rate)
    # torchaudio counts in float32, which is a few samples off for long waveforms.
    size = resampled_length(len(waveform), source_rate, target_rate)
    resampled = np.asarray(tensor.numpy(), dtype=np.float32)[:size]
    return np.pad(resampled, (0, size - len(resampled)), mode="edge")


def _resampling_margin(source_rate: int, target_rate: int) -> tuple[int, int]:
    """After how many samples `resample` repeats itself, and how far it looks to each side."""
    common = math.gcd(source_rate, target_rate)
    step = source_rate // common
    # torchaudio's filter: six zero crossings a side of 0.99 of the lower rate.
    width = math.ceil(6 * source_rate / (0.99 * min(source_rate, target_rate)))
    return step, step * math.ceil(width / step)


def _resample_blocks(
    blocks: Iterator[Waveform], source_rate: int, target_rate: int
) -> Iterator[Waveform]:
    """`resample` of the joined blocks, which all but the last hold whole steps of the filter."""
    _, margin = _resampling_margin(source_rate, target_rate)
    none = np.zeros(0, np.float32)
    before, block = none, next(blocks, none)
    while len(block):
        after = next(blocks, none)
        known = np.concatenate([before, block])
        around = np.concatenate([known, after[:margin]])
        first = resampled_length(len(before), source_rate, target_rate)
        count = resampled_length(len(block), source_rate, target_rate)
        yield resample(around, source_rate, target_rate)[first : first + count]
        before, block = known[max(0, len(known) - margin) :], after


def resampled_blocks(waveform: Waveform, source_rate: int, target_rate: int) -> Iterator[Waveform]:
    """The blocks of `resample`, of a waveform (T,) that may be long and lie in a file."""
    step, _ = _resampling_margin(source_rate, target_rate)
    size = step * max(1, BLOCK // step)
    blocks = (waveform[start : start + size] for start in range(0, len(waveform), size))
    yield from _resample_blocks(blocks, source_rate, target_rate)


def read_blocks(path: str | Path, sample_rate: int | None = SAMPLE_RATE) -> Iterator[Waveform]:
    """The blocks (T,) of `read_audio`, of a file of any length.

    Raises:
        AudioError: as `read_audio`.
    """
    with open_audio(path) as sound:
        target = sample_rate or sound.rate
        step, _ = _resampling_margin(sound.rate, target)
        blocks = sound.blocks(step * max(1, BLOCK // step))
        mono = (block.mean(axis=1, dtype=np.float32) for block in blocks)
        yield from _resample_blocks(mono, sound.rate, target)


def read_audio(path: str | Path, sample_rate: int | None = SAMPLE_RATE) -> Waveform:
    """Read a file as mono (T,) at `sample_rate` (None keeps the file's own).

    Raises:
        AudioError: the file cannot be decoded, is empty, truncated, or holds NaN or infinite
            samples.
    """
    return np.concatenate(list(read_blocks(path, sample_rate)))


def on_disk(blocks: Iterable[Waveform]) -> Waveform:
    """Blocks joined to one waveform (T,) that lies in a temporary file: for what may be long.

    The file has no name, so it is gone with the array, however the program ends.
    """
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).data)
        file.flush()
        # Nothing can be mapped of an empty file.
        return np.memmap(file, np.float32, "r+") if file.tell() else np.zeros(0, np.float32)


def read_unchanged(path: str | Path, checksum: str, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a file as mono (T,) at `sample_rate`.

    Raises:
        AudioError: as `read_audio`, or the file is gone, or has another checksum than `check_audio`
            found.
    """
    if not Path(path).is_file():
        raise AudioError(
            path,
            "gone since its manifest was made; put it back, or run `snakemake manifests`, "
            "then go on",
        )
    if file_checksum(path) != checksum:
        raise AudioError(
            path, "changed since its manifest was made; run `snakemake manifests`, then go on"
        )
    return read_audio(path, sample_rate)


def read_ahead(
    batches: Iterable[Sequence[tuple[Any, ...]]],
    threads: int = 2,
    read: Callable[..., Waveform] = read_unchanged,
) -> Iterator[list[Waveform]]:
    """The waveforms of each batch of files; the next batch is read meanwhile.

    Decoding and resampling leave Python's lock, so threads do, and need no second PyTorch each.

    Args:
        batches: the arguments of `read` for each file: its path and checksum, and a rate where it
            is not 16 kHz.
        threads: that read.
        read: reads one file.

    Raises:
        AudioError: as `read`, at the batch of the file.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[list[Future[Waveform]]] = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(read, *file) for file in batch])
            if len(waiting) > 1:
                yield [reading.result() for reading in waiting.popleft()]
        while waiting:
            yield [reading.result() for reading in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def check_suffix(path: Path) -> None:
    """Raise `AudioError` unless `write_audio` knows the format that the suffix names."""
    if path.suffix.lower() not in WRITABLE:
        raise AudioError(
            path, f"written are {', '.join(WRITABLE)}, not {path.suffix or 'no suffix'}"
        )


def write_audio(
    path: str | Path, waveform: Waveform, sample_rate: int = SAMPLE_RATE, gain: float = 1.0
) -> float:
    """Write (T,), times `gain`, as 16-bit audio, whole or not at all; the suffix names the format.

    Samples beyond [-1, 1] would clip: the waveform is then scaled down to a peak of 1.

    Returns:
        The gain that was applied: less than `gain` where samples would have clipped.
    """
    path = Path(path)
    check_suffix(path)
    blocks = [waveform[start : start + BLOCK] for start in range(0, len(waveform), BLOCK)]
    if not all(np.isfinite(block).all() for block in blocks):
        raise AudioError(path, "NaN or infinite samples are not written")
    peak = gain * max((float(np.abs(block).max()) for block in blocks), default=0.0)
    gain /= max(1.0, peak)
    kind = path.suffix.lstrip(".").upper()
    try:
        with (
            atomic_file(path) as part,
            soundfile.SoundFile(part, "w", sample_rate, 1, "PCM_16", format=kind) as sound,
        ):
            for block in blocks:
                sound.write(block * np.float32(gain))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            path, f"cannot be written ({error.error_string}); is the disk full?"
        ) from error
    return gain


def write_lossless(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """Write (T,) with its exact level, whole or not at all; the suffix names the format.

    `.wav` is 32-bit float: every value survives. `.flac` is 24-bit: values are rounded to
    multiples of 2^-23, and those that lie on one survive.

    Raises:
        AudioError: another suffix, NaN or infinite samples, a peak that FLAC has no room for, or
            the file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    if not np.isfinite(waveform).all():
        raise AudioError(path, "NaN or infinite samples are not written")
    from scipy.io import wavfile  # half of SciPy, which readers need not wait for

    try:
        with atomic_file(path) as part:
            if path.suffix.lower() == ".wav":
                # libsndfile puts the time into float WAV: the same samples, other bytes.
                wavfile.write(part, sample_rate, np.asarray(waveform, np.float32))
            else:
                soundfile.write(
                    part, _on_24_bits(path, waveform), sample_rate, "PCM_24", format="FLAC"
                )
    except soundfile.LibsndfileError as error:
        raise AudioError(
            path, f"cannot be written ({error.error_string}); is the disk full?"
        ) from error


def _on_24_bits(path: Path, waveform: Waveform) -> npt.NDArray[np.int32]:
    """The samples as the upper 24 bits of integers: floats libsndfile would scale by 1 - 2^-23."""
    steps = np.rint(np.asarray(waveform, np.float64) * (1 << 23))
    if len(steps) and not -(1 << 23) <= steps.min() <= steps.max() < 1 << 23:
        peak = np.abs(waveform).max()
        raise AudioError(path, f"a peak of {peak:.3f} would clip; write .wav, which is float")
    return steps.astype(np.int32) << 8

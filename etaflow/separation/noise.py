"""Noise of a mixture: from a file, made long enough, or synthesised."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from etaflow.audio import BLOCK, EXTENSIONS, SAMPLE_RATE, AudioError, resampled_length
from etaflow.decoding import open_audio

Floats = npt.NDArray[np.floating]

# Training noise that LibriMix takes from WHAM! at another speed, and leaves in files of this name.
FASTER = re.compile(r"(.+)sp(\d)(\d)(\.\w+)")
PINK = re.compile(r"pink:(\d+)")  # in place of a path: synthesised, by this seed
PINK_LEVEL = 0.05  # RMS
# From 20 Hz to 20 kHz at 44.1 kHz within 0.5 dB of 1/f (Smith, "Spectral Audio Signal Processing").
PINK_ZEROS = (0.049922035, -0.095993537, 0.050612699, -0.004408786)
PINK_POLES = (1.0, -2.494956002, 2.017265875, -0.522189400)
PINK_GAIN = 11.5  # brings the filter's output for white noise of RMS 1 to about 1


def list_noises(root: str | Path, below: str = "") -> list[str]:
    """The audio files under `root`/`below`, as paths from `root`, sorted.

    Raises:
        AudioError: there are none.
    """
    folder = Path(root, below)
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS]
    if not paths:
        raise AudioError(folder, "no audio files to take noise from")
    return sorted(path.relative_to(root).as_posix() for path in paths)


def pink_noise(seed: int, num_samples: int) -> Floats:
    """Pink noise (T,) of an RMS of about 0.05, float32; a shorter one is the start of a longer."""
    from scipy.signal import lfilter  # half of SciPy, which readers of tables need not wait for

    white = np.random.default_rng(seed).standard_normal(num_samples)
    pink = PINK_LEVEL * PINK_GAIN * lfilter(PINK_ZEROS, PINK_POLES, white)
    return np.asarray(pink, np.float32)


def read_noise(
    name: str, root: Path | None, lengths: Sequence[tuple[int, int]]
) -> tuple[Floats, int]:
    """Noise that lasts as long as the longest of some sources, and its sampling rate.

    Args:
        name: a path from `root`, or `pink:SEED`.
        root: the folder of the noise.
        lengths: samples and rate (Hz) of each source.

    Returns:
        The start of the file's first channel (T,), float32; where it is too short, it is extended
        in float64, as LibriMix does.

    Raises:
        AudioError: the file cannot be read, or is too short to be extended.
        ValueError: `name` is a path, and there is no root.
    """

    def needed(rate: int) -> int:
        return max(resampled_length(size, own, rate) for size, own in lengths)

    if pink := PINK.fullmatch(name):
        return pink_noise(int(pink[1]), needed(SAMPLE_RATE)), SAMPLE_RATE
    if root is None:
        raise ValueError(f"no folder is given for the noise {name}")
    path, speed = _file_and_speed(root / name)
    blocks: list[Floats] = []
    with open_audio(path) as sound:
        size, rate = needed(sound.rate), sound.rate
        for block in sound.blocks(BLOCK):
            blocks.append(block[:, 0])
            if sum(map(len, blocks)) >= size and speed == 1:
                break
    noise = np.concatenate(blocks)
    if speed != 1:
        noise = soxr.resample(noise, speed * rate, rate)
    noise = noise[:size]
    if len(noise) < size:
        fade = rate // 2 + 1
        if len(noise) <= fade:
            reason = f"{len(noise)} samples of noise are too few to be extended (half a second)"
            raise AudioError(root / name, reason)
        noise = _extended(noise, size, rate)
    return noise, rate


def _file_and_speed(path: Path) -> tuple[Path, float]:
    """The file that a noise is made of, and how much faster than it the noise is.

    LibriMix writes the first channel of WHAM!'s training noise `NAME.wav` once more, at 0.8 and 1.2
    of its speed by SoX, as `NAMEsp08.wav` and `NAMEsp12.wav`. Where these are not there, they are
    made as they are asked for; by SoX's resampler as a library, and so all but the same.
    """
    name = FASTER.fullmatch(path.name)
    if name is None or path.exists():
        return path, 1.0
    slower = path.with_name(name[1] + name[4])
    return (slower, float(f"{name[2]}.{name[3]}")) if slower.exists() else (path, 1.0)


def _extended(noise: Floats, size: int, rate: int) -> Floats:
    """`size` samples of a noise that follows itself, faded over half a second by a Hann window."""
    rising = np.hanning(rate + 1)[: rate // 2 + 1]
    fade = len(rising)
    extended = noise
    while len(extended) < size:
        faded = extended[-fade:] * rising[::-1] + noise[:fade] * rising
        extended = np.concatenate([extended[:-fade], faded, noise[fade:]])
    return extended[:size]

"""What training crops are mixed with: other speeds, rooms, noise, music and talk."""

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from speechbrain.augment.time_domain import Resample
from speechbrain.processing.signal_processing import (
    compute_amplitude,
    dB_to_amplitude,
    reverberate,
)

from etaflow.audio import EXTENSIONS, AudioError, Waveform, check_audio
from etaflow.waveforms import Waveforms, random_crop

CACHE_BYTES = 1 << 28  # a folder and process
SETTINGS = {
    "noise": {"folder", "snr", "probability"},
    "music": {"folder", "snr", "probability"},
    "babble": {"folder", "snr", "speakers", "probability"},
    "reverberation": {"folder", "probability"},
    "speed": {"factors"},
}


class AugmentationError(ValueError):
    """Settings or a folder that cannot be used."""


def _rms(waveform: torch.Tensor) -> float:
    return float(compute_amplitude(waveform, amp_type="rms"))


@cache
def _resampler(source: int, target: int) -> torch.nn.Module:
    return Resample(orig_freq=source, new_freq=target)


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play (T,) `factor` times as fast, pitch and all: (ceil(T / factor),)."""
    ratio = Fraction(factor).limit_denominator(1000)
    if ratio == 1:
        return waveform
    resample = _resampler(ratio.numerator, ratio.denominator)
    faster: Waveform = resample(torch.from_numpy(waveform)[None])[0].numpy()
    return faster


def add_room(waveform: Waveform, response: Waveform) -> Waveform:
    """(T,) convolved with a room's impulse response (R,), direct path in place, as loud as before.

    The direct path is the response's largest sample.
    """
    # SpeechBrain convolves in a circle, and cuts a response that is longer than the speech.
    room = next_fast_len(len(waveform) + len(response), real=True) - len(waveform)
    padded = np.pad(waveform, (0, room))
    wet = reverberate(torch.from_numpy(padded)[None], torch.from_numpy(response), rescale_amp=None)
    wet = wet[0, : len(waveform)]
    loudness = _rms(wet)
    if loudness:
        wet = wet * (_rms(torch.from_numpy(waveform)) / loudness)
    return np.asarray(wet.numpy(), np.float32)


def scaled_noise(noise: Waveform, speech: Waveform, snr: float) -> Waveform:
    """Noise (T,), scaled to lie `snr` dB below speech; silence stays silence."""
    loudness = _rms(torch.from_numpy(noise))
    if loudness == 0:
        return noise
    gain = _rms(torch.from_numpy(speech)) / dB_to_amplitude(snr) / loudness
    return noise * np.float32(gain)


class Sounds:
    """The recordings in a folder, at whatever depth, at 16 kHz."""

    def __init__(self, folder: str | Path) -> None:
        """Decode every one of them, once.

        Raises:
            AugmentationError: the folder has no recordings, or one cannot be used.
        """
        folder = Path(folder)
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not paths:
            raise AugmentationError(
                f"{folder}: no recordings to augment with ({', '.join(EXTENSIONS)})"
            )
        try:
            checksums = {str(path): check_audio(path).checksum for path in paths}
        except AudioError as error:
            raise AugmentationError(f"{error}: mend or remove it") from error
        self.names = list(checksums)
        self.digest = hashlib.blake2b(
            repr([(str(Path(n).relative_to(folder)), c) for n, c in checksums.items()]).encode()
        ).hexdigest()
        files = {name: (name, checksum) for name, checksum in checksums.items()}
        self._waveforms = Waveforms(files, cache_bytes=CACHE_BYTES)

    def draw(self, generator: np.random.Generator) -> Waveform:
        """One of them."""
        return self._waveforms.read(self.names[generator.integers(len(self.names))])

    def draw_crops(self, count: int, size: int, generator: np.random.Generator) -> list[Waveform]:
        """Crops (size,) of `count` of them, no two of one as long as they last."""
        drawn = generator.permutation(len(self.names))
        return [
            random_crop(self._waveforms.read(self.names[i]), size, generator)
            for i in np.resize(drawn, count)
        ]


def _check(settings: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, own in settings.items():
        if kind not in SETTINGS:
            raise AugmentationError(f"augmentation {kind!r}: known are {', '.join(SETTINGS)}")
        if own.keys() != SETTINGS[kind]:
            raise AugmentationError(
                f"augmentation {kind}: {', '.join(sorted(own)) or 'nothing'} given, "
                f"{', '.join(sorted(SETTINGS[kind]))} expected"
            )
        if not 0 <= own.get("probability", 0) <= 1:
            raise AugmentationError(f"augmentation {kind}: probability {own['probability']}")
        low, high = own.get("snr", (0, 0))
        if low > high:
            raise AugmentationError(f"augmentation {kind}: snr from {low} to {high} dB")
        low, high = own.get("speakers", (1, 1))
        if not 1 <= low <= high:
            raise AugmentationError(f"augmentation {kind}: {low} to {high} speakers")
        factors = own.get("factors", [1.0])
        if not factors or min(factors) <= 0:
            raise AugmentationError(f"augmentation {kind}: factors {list(factors)}")


class Augmentation:
    """Crops of speech, each at a speed, in a room and among sounds that are drawn for it.

    In this order, each kind with its own probability. What is added is so many dB below the speech,
    as it sounds in the room, each kind by itself.
    """

    def __init__(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Read what is in the folders.

        Args:
            settings: any of `noise` and `music`: {folder, snr: [low, high] dB, probability};
                `babble`: {folder, snr, speakers: [fewest, most], probability}, the sum of crops
                of so many recordings, equally loud; `reverberation`: {folder, probability}, a
                folder of impulse responses; `speed`: {factors}, each as likely.

        Raises:
            AugmentationError: a setting that is unknown, missing or out of range, a folder without
                recordings, or a recording that cannot be used.
        """
        _check(settings)
        self._settings = settings
        self._sounds = {k: Sounds(own["folder"]) for k, own in settings.items() if "folder" in own}
        self._factors = settings.get("speed", {}).get("factors", [1.0])

    @property
    def digest(self) -> str:
        """Changes with the recordings in the folders."""
        return repr({kind: sounds.digest for kind, sounds in self._sounds.items()})

    def cut(self, waveform: Waveform, size: int, generator: np.random.Generator) -> Waveform:
        """An augmented random crop (size,) of a waveform (T,)."""
        factor = self._factors[generator.integers(len(self._factors))]
        crop = random_crop(waveform, int(np.ceil(size * factor)), generator)
        speech = change_speed(crop, factor)[:size]
        if self._happens("reverberation", generator):
            speech = add_room(speech, self._sounds["reverberation"].draw(generator))
        mixture = speech
        for kind in ("noise", "music", "babble"):
            if self._happens(kind, generator):
                snr = generator.uniform(*self._settings[kind]["snr"])
                noise = self._draw_noise(kind, size, generator)
                mixture = mixture + scaled_noise(noise, speech, snr)
        return mixture

    def _happens(self, kind: str, generator: np.random.Generator) -> bool:
        return kind in self._settings and generator.random() < self._settings[kind]["probability"]

    def _draw_noise(self, kind: str, size: int, generator: np.random.Generator) -> Waveform:
        fewest, most = self._settings[kind].get("speakers", (1, 1))
        count = int(generator.integers(fewest, most + 1))
        first, *others = self._sounds[kind].draw_crops(count, size, generator)
        return sum((scaled_noise(other, first, 0.0) for other in others), start=first)

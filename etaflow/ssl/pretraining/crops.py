"""Training items: crops of utterances, partly overlaid, and what their clean frames are like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset
from torchaudio.compliance import kaldi

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.pitch import track_pitch
from etaflow.ssl.frames import FIELD
from etaflow.ssl.pretraining.codes import HOP_MS, WINDOW_MS
from etaflow.waveforms import Waveforms

HOP = 320  # samples, of WavLM
IGNORED = -100  # the code of a frame that is padding: cross entropy leaves it out
# As in WavLM's pretraining: how far below the speech what is mixed in lies, dB.
SPEECH_RATIO, NOISE_RATIO = (-5.0, 5.0), (-5.0, 20.0)
BANDS = 40  # of the spectrum: its envelope more than its harmonics
QUIET = 0.1  # added to energies of a waveform of unit variance: 30 to 40 dB below those of noise
STEEPEST = 2.0  # noise between white (0) and brown (2) in the exponent of its falling power


def coloured_noise(num_samples: int, generator: np.random.Generator) -> Waveform:
    """Gaussian noise (T,) of a drawn colour, from white to brown, of unit power."""
    spectrum = np.fft.rfft(generator.standard_normal(num_samples))
    places = np.maximum(np.arange(len(spectrum)), 1.0)
    spectrum *= places ** (-generator.uniform(0, STEEPEST) / 2)
    noise = np.fft.irfft(spectrum, num_samples)
    return np.asarray(noise / np.sqrt(np.mean(noise**2) + 1e-12), np.float32)


def log_energies(waveform: torch.Tensor) -> torch.Tensor:
    """Natural logarithms of energies (frames, BANDS) in mel bands, of (1, T) at 16 kHz.

    There are as many frames as WavLM makes, floor((T - 400) / 320) + 1.
    """
    energies = kaldi.fbank(
        waveform,
        sample_frequency=SAMPLE_RATE,
        frame_length=WINDOW_MS,
        frame_shift=HOP_MS,
        num_mel_bins=BANDS,
        dither=0.0,
        preemphasis_coefficient=0.0,
        use_log_fbank=False,
    )
    return (energies + QUIET).log()


class Crops(Dataset[dict[str, Any]]):
    """Crops of utterances, as pure functions of what is asked for.

    Each utterance is brought to zero mean and unit variance. A part of a crop is overlaid (WavLM's
    denoising, arXiv 2110.13900, section III-B), while codes, pitch and spectrum stay those of the
    utterance.
    """

    def __init__(
        self,
        codes: Mapping[str, npt.NDArray[np.int16]],
        waveforms: Waveforms,
        utterance_ids: Sequence[str],
        num_frames: int,
        overlaid: Mapping[str, float],
    ) -> None:
        """Set up the items.

        Args:
            codes: of each utterance (frames,).
            waveforms: of all of them, at 16 kHz.
            utterance_ids: to crop.
            num_frames: of a crop; a shorter utterance is padded by silence, which has no codes.
            overlaid: the probabilities that `speech` of another utterance, or `noise`, lies over
                up to half of a crop; together 1 at most.
        """
        self._codes, self._waveforms = codes, waveforms
        self.utterance_ids, self.num_frames = list(utterance_ids), num_frames
        self._speech, self._noise = overlaid["speech"], overlaid["noise"]

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def whole(self, name: str) -> Waveform:
        """An utterance (T,) at zero mean and unit variance."""
        waveform = self._waveforms.read(name)
        return (waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(1e-7))

    def _overlay(self, crop: Waveform, generator: np.random.Generator) -> None:
        """Lay something over a part of a crop (T,), in place."""
        drawn, ratio = generator.random(), NOISE_RATIO
        if drawn >= self._speech + self._noise:
            return
        size = int(generator.integers(1, len(crop) // 2 + 1))
        if drawn < self._speech:
            other = self.whole(self.utterance_ids[generator.integers(len(self))])
            size, ratio = min(size, len(other)), SPEECH_RATIO
            start = int(generator.integers(len(other) - size + 1))
            added = other[start : start + size]
        else:
            added = coloured_noise(size, generator)
        place = int(generator.integers(len(crop) - size + 1))
        powers = np.mean(crop**2), np.mean(added**2) + 1e-12
        gain = np.sqrt(powers[0] / powers[1]) * 10 ** (-generator.uniform(*ratio) / 20)
        crop[place : place + size] += np.float32(gain) * added

    def __getitem__(self, draw: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """Cut a crop.

        Args:
            draw: the place of the utterance, and the seed of what is random.

        Returns:
            `utterance_id`; `waveform` (320 num_frames + 80,) float32, with what lies over it; its
            `codes` (num_frames,) int64; its `pitch`, Hz, and whether it is `voiced`, both
            (num_frames,), of `track_pitch`; and its `spectrum` (num_frames, BANDS), see
            `log_energies`.
        """
        index, seed = draw
        generator, name = np.random.default_rng(seed), self.utterance_ids[index]
        waveform, codes = self.whole(name), self._codes[name]
        first = int(generator.integers(max(1, len(codes) - self.num_frames + 1)))
        size = HOP * (self.num_frames - 1) + FIELD
        spoken = waveform[first * HOP : first * HOP + size]
        self._overlay(crop := spoken.copy(), generator)
        padded = np.zeros((2, size), np.float32)
        padded[:, : len(crop)] = crop, spoken
        # WavLM's frames are 400 samples, those of the pitch 320: the middle is the same.
        clean = torch.from_numpy(padded[1:, (FIELD - HOP) // 2 :])
        pitch, voiced = track_pitch(clean, self.num_frames, SAMPLE_RATE)
        targets = np.full(self.num_frames, IGNORED, np.int64)
        own = codes[first : first + self.num_frames]
        targets[: len(own)] = own
        voiced[:, len(own) :] = False  # of padding, whose window reaches back into speech
        return {
            "utterance_id": name,
            "waveform": torch.from_numpy(padded[0]),
            "codes": torch.from_numpy(targets),
            "pitch": pitch[0],
            "voiced": voiced[0],
            "spectrum": log_energies(torch.from_numpy(padded[1:])),
        }

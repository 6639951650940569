"""Training items of separators: a crop of a mixture and of its sources, or a mixture made anew."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from etaflow.audio import SILENCE_PEAK, Waveform
from etaflow.separation.mixing import MetadataError
from etaflow.separation.tables import num_sources, read_listed, speakers_of_mixtures
from etaflow.waveforms import CACHE_BYTES, Waveforms

TRIES = 100  # to find a crop in which all speak


class MixtureFiles:
    """The recordings of a table of mixtures, kept in memory as `Waveforms` keeps them."""

    def __init__(self, table: pd.DataFrame, cache_bytes: int = CACHE_BYTES) -> None:
        """Read the files of a table as `read_mixtures` gives it, at the rate that it says."""
        self.names: list[str] = list(table["mixture_ID"])
        self.speakers = speakers_of_mixtures(table)  # (N, S)
        self.num_sources = num_sources(table)
        self.has_noise = "noise_path" in table
        self.sample_rate = int(table["sample_rate"].iloc[0])
        parts = ["mixture", *self._sources(), *(["noise"] if self.has_noise else [])]
        self._waveforms = Waveforms(
            {
                f"{part} {name}": (path, checksum)
                for part in parts
                for name, path, checksum in zip(
                    self.names, table[f"{part}_path"], table[f"{part}_checksum"], strict=True
                )
            },
            self.sample_rate,
            cache_bytes,
            read_listed,
        )

    def __len__(self) -> int:
        return len(self.names)

    def _sources(self) -> list[str]:
        return [f"source_{number + 1}" for number in range(self.num_sources)]

    def read(self, index: int, part: str) -> Waveform:
        """A file (T,) of a mixture: its `mixture`, `noise` or `source_1` …

        Raises:
            AudioError: the file changed, or cannot be read.
        """
        return self._waveforms.read(f"{part} {self.names[index]}")

    def mixture(self, index: int) -> tuple[Waveform, Waveform]:
        """A whole mixture (T,) and its sources (S, T)."""
        sources = [self.read(index, part) for part in self._sources()]
        return self.read(index, "mixture"), np.stack(sources)


class MixtureCrops(Dataset[dict[str, Any]]):
    """Random crops of mixtures with their sources, or of new mixtures of the same sources.

    What is drawn is a pure function of what is asked for, so that a resumed training sees what an
    uninterrupted one would have seen.
    """

    def __init__(self, files: MixtureFiles, num_samples: int, dynamic: bool = False) -> None:
        """Set up the items.

        Args:
            files: of the mixtures.
            num_samples: T, of a crop. What is shorter is padded with zeros at its end: they are
                silence in the mixture and in its sources alike, whereas a repeated beginning would
                have a speaker break off and say the same again.
            dynamic: mix anew. One source is of the mixture that is asked for, so that an epoch
                hears of each; the others are drawn from all sources, of other speakers, and so is
                the noise, where there is any. Each is cropped on its own. SpeechBrain's recipe for
                LibriMix mixes dynamically, too, but draws all speakers and brings them to a
                loudness then; sources here have the levels that they were written with.

        Raises:
            MetadataError: there are fewer speakers than a new mixture needs.
        """
        self.files, self.num_samples, self._dynamic = files, num_samples, dynamic
        found, self._speakers = np.unique(files.speakers, return_inverse=True)
        self._speakers = self._speakers.reshape(files.speakers.shape)
        if dynamic and len(found) < files.num_sources:
            raise MetadataError(
                f"{len(found)} speaker(s) in all mixtures; dynamic mixing draws "
                f"{files.num_sources} different ones"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """Cut a mixture and its sources.

        Args:
            draw: the number of the mixture, and the seed of what is random.

        Returns:
            `utterance_id`, that of the mixture, followed by those of all else that was mixed in,
            parted by spaces; `mixture` (T,) and `sources` (S, T), float32. A new mixture is the sum
            of its sources and of the noise.

        Raises:
            AudioError: a file changed, or cannot be read.
            MetadataError: no crop was found in which all sources are heard: an SI-SNR to silence
                is not defined.
        """
        index, seed = draw
        generator = np.random.default_rng(seed)
        cut = self._mix if self._dynamic else self._cut
        drawn, mixture, sources = cut(index, generator)
        return {
            "utterance_id": " ".join(self.files.names[each] for each in drawn),
            "mixture": torch.from_numpy(mixture),
            "sources": torch.from_numpy(sources),
        }

    def _cut(
        self, index: int, generator: np.random.Generator
    ) -> tuple[list[int], Waveform, Waveform]:
        mixture, sources = self.files.mixture(index)
        crops = self._crop(np.vstack([sources, mixture]), index, generator)
        return [index], crops[-1], crops[:-1]

    def _mix(
        self, index: int, generator: np.random.Generator
    ) -> tuple[list[int], Waveform, Waveform]:
        own = int(generator.integers(self.files.num_sources))
        drawn = [(index, own)]
        while len(drawn) < self.files.num_sources:
            used = [self._speakers[place] for place in drawn]
            others = np.argwhere(~np.isin(self._speakers, used))
            row, column = others[generator.integers(len(others))]
            drawn.append((int(row), int(column)))
        crops = []
        for row, column in drawn:
            source = self.files.read(row, f"source_{column + 1}")
            crops.append(self._crop(source[None], row, generator)[0])
        sources, rows = np.stack(crops), [row for row, _ in drawn]
        mixture = sources.sum(axis=0)
        if self.files.has_noise:
            rows.append(int(generator.integers(len(self.files))))
            noise = self.files.read(rows[-1], "noise")
            start = generator.integers(max(0, len(noise) - self.num_samples) + 1)
            mixture = mixture + self._fitted(noise[None, start:])[0]
        return rows, mixture, sources

    def _crop(self, signals: Waveform, index: int, generator: np.random.Generator) -> Waveform:
        """Signals (C, t) of a mixture from a drawn place on (C, T), none of them silent there."""
        last = max(0, signals.shape[1] - self.num_samples)
        for _ in range(TRIES if last else 1):
            start = int(generator.integers(last + 1))
            crop = self._fitted(signals[:, start:])
            if (np.ptp(crop, axis=1) >= 2 * SILENCE_PEAK).all():
                return crop
        raise MetadataError(
            f"mixture {self.files.names[index]}: no crop of {self.num_samples} samples was found "
            "in which no source is silent (never beyond -80 dBFS); leave it out, or take longer "
            "crops"
        )

    def _fitted(self, signals: Waveform) -> Waveform:
        signals = signals[:, : self.num_samples]
        return np.pad(signals, [(0, 0), (0, self.num_samples - signals.shape[1])])

"""Random segments of features with the waveform they came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from etaflow.audio import SAMPLE_RATE, Waveform, read_unchanged
from etaflow.store import FeatureStore
from etaflow.vocoder.config import VocoderError

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
    ) -> None:
        """Read these files, each with the checksum that `check_audio` found, by utterance id."""
        self.sample_rate = sample_rate
        self._files, self._room = files, cache_bytes
        self._cache: dict[str, Waveform] = {}

    def read(self, utterance_id: str) -> Waveform:
        """The whole waveform (T,) of an utterance.

        Raises:
            AudioError: the file changed, or cannot be read.
        """
        if utterance_id in self._cache:
            return self._cache[utterance_id]
        waveform = read_unchanged(*self._files[utterance_id], self.sample_rate)
        if waveform.nbytes <= self._room:
            self._cache[utterance_id] = waveform
            self._room -= waveform.nbytes
        return waveform


class Segments(Dataset[dict[str, Any]]):
    """Segments of `num_frames` frames; frame i goes with samples [hop i, hop i + hop).

    The hop is that of the features, in samples at the rate of the waveforms.

    Where a segment starts is a pure function of what is asked for, so that a resumed training sees
    the segments that an uninterrupted one would have seen. Utterances shorter than a segment are
    padded with zeros on the right.
    """

    def __init__(
        self,
        store: FeatureStore,
        waveforms: Waveforms,
        utterance_ids: Sequence[str],
        num_frames: int,
    ) -> None:
        """Use these utterances of `store`; one that it does not have raises `KeyError`."""
        lengths = dict(zip(store.utterance_ids, store.num_frames, strict=True))
        self._store, self._waveforms, self._ids = store, waveforms, list(utterance_ids)
        self._lengths = [int(lengths[name]) for name in self._ids]
        self._num_frames = num_frames
        self._hop = store.meta.hop_length * waveforms.sample_rate // store.meta.sample_rate

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def num_padded(self) -> int:
        """Utterances that are shorter than a segment."""
        return sum(length < self._num_frames for length in self._lengths)

    def __getitem__(self, draw: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """Cut a segment.

        Args:
            draw: the number of the utterance, and the seed that places the segment.

        Returns:
            `utterance_id`, `features` (num_frames, D) and `waveform` (hop num_frames,), float32,
            and `num_samples`, how many of the waveform are not padding.
        """
        index, seed = draw
        name, count = self._ids[index], self._num_frames
        start = int(np.random.default_rng(seed).integers(max(0, self._lengths[index] - count) + 1))
        features = torch.from_numpy(self._store.read(name, start, start + count))
        first, size = start * self._hop, count * self._hop
        waveform = torch.from_numpy(self._waveforms.read(name)[first : first + size].copy())
        spoken = min(len(waveform), len(features) * self._hop)
        return {
            "utterance_id": name,
            "features": torch.nn.functional.pad(features, (0, 0, 0, count - len(features))),
            "waveform": torch.nn.functional.pad(waveform[:spoken], (0, size - spoken)),
            "num_samples": spoken,
        }


def full_band(sample_rates: Mapping[str, int], sample_rate: int) -> tuple[list[str], list[str]]:
    """Utterances recorded at `sample_rate` or above, and the others.

    Resampled to it, the others have nothing above half their own rate, and would teach that.

    Raises:
        VocoderError: there are only others.
    """
    kept = [name for name, rate in sample_rates.items() if rate >= sample_rate]
    if not kept:
        raise VocoderError(
            f"none of {len(sample_rates)} training utterances is recorded at {sample_rate} Hz or "
            "more: lower the generator's sample_rate, or take another corpus"
        )
    return kept, [name for name, rate in sample_rates.items() if rate < sample_rate]


def hold_out(utterance_ids: Sequence[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """Split off `count` utterances, drawn by `seed`: those that remain, and those held out.

    Raises:
        ValueError: fewer than `count` + 1 utterances.
    """
    if not 0 < count < len(utterance_ids):
        raise ValueError(f"cannot hold {count} of {len(utterance_ids)} utterances out of training")
    order = np.random.default_rng(seed).permutation(len(utterance_ids))
    held = {utterance_ids[index] for index in order[:count]}
    return [name for name in utterance_ids if name not in held], sorted(held)

"""Random segments of features with the waveform they came from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from etaflow.store import FeatureStore
from etaflow.vocoder.config import VocoderError
from etaflow.waveforms import Waveforms


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
            `num_samples`, how many of the waveform are not padding, and `first_frame`.
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
            "first_frame": start,
        }


class JoinedSegments(Dataset[dict[str, Any]]):
    """The segments of several, one after the other."""

    def __init__(self, parts: Sequence[Segments]) -> None:
        self._places = [(part, index) for part in parts for index in range(len(part))]
        self.num_padded = sum(part.num_padded for part in parts)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """See `Segments`."""
        part, index = self._places[draw[0]]
        return part[index, draw[1]]


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

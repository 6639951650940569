"""Training items of speaker encoders: a speaker, and a few crops of what they said."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from etaflow.speaker.augment import Augmentation
from etaflow.waveforms import Waveforms, random_crop


class SpeakerUtterances(Dataset[dict[str, Any]]):
    """M random crops of utterances of a speaker; N items are a batch of N x M.

    What is drawn is a pure function of what is asked for, so that a resumed training sees what an
    uninterrupted one would have seen.
    """

    def __init__(
        self,
        utterances: Mapping[str, Sequence[str]],
        waveforms: Waveforms,
        num_utterances: int,
        num_samples: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Set up the items.

        Args:
            utterances: the ids of each speaker's utterances; a speaker's label is the place of
                their id in order.
            waveforms: of all of them.
            num_utterances: M. A speaker with fewer says all of them once before any twice.
            num_samples: T, of a crop. A shorter utterance is repeated until it fills it.
            augmentation: of each crop.

        Raises:
            ValueError: there is no speaker, or one of no utterances.
        """
        self.speakers = sorted(utterances)
        self._utterances = [list(utterances[speaker]) for speaker in self.speakers]
        silent = [s for s, own in zip(self.speakers, self._utterances, strict=True) if not own]
        if silent or not self.speakers:
            raise ValueError(
                f"no utterance of {silent[0] if silent else 'any speaker'} to train on"
            )
        self._waveforms, self._augmentation = waveforms, augmentation
        self.num_utterances, self.num_samples = num_utterances, num_samples

    def __len__(self) -> int:
        return len(self.speakers)

    def __getitem__(self, draw: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """Cut the crops of a speaker.

        Args:
            draw: the label of the speaker, and the seed of what is random.

        Returns:
            `utterance_id`, those of all crops, parted by spaces; `waveforms` (M, T) float32; and
            the `label`.
        """
        label, seed = draw
        generator, own = np.random.default_rng(seed), self._utterances[label]
        rounds = -(-self.num_utterances // len(own))
        order = np.concatenate([generator.permutation(len(own)) for _ in range(rounds)])
        names = [own[index] for index in order[: self.num_utterances]]
        cut = self._augmentation.cut if self._augmentation else random_crop
        crops = [cut(self._waveforms.read(name), self.num_samples, generator) for name in names]
        return {
            "utterance_id": " ".join(names),
            "waveforms": torch.from_numpy(np.stack(crops)),
            "label": label,
        }

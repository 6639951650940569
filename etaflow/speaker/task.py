"""Training a speaker encoder: what `etaflow.training.train` is given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from etaflow.audio import SAMPLE_RATE
from etaflow.metrics import equal_error_rate, min_dcf
from etaflow.schedule import adamw, set_rates
from etaflow.speaker.losses import Criterion
from etaflow.speaker.network import SpeakerNetwork, embed
from etaflow.speaker.utterances import SpeakerUtterances
from etaflow.store import Floats
from etaflow.store.embeddings import unit_rows
from etaflow.waveforms import Waveforms

CHUNK = 256  # validation utterances in memory at a time


class Validation:
    """Trials of held-out utterances."""

    def __init__(
        self, trials: pd.DataFrame, waveforms: Waveforms, max_seconds: float | None = None
    ) -> None:
        """Set up.

        Args:
            trials: columns `enrolment` and `test` (utterance ids) and `target` (1 or 0), of both.
            waveforms: of all their utterances.
            max_seconds: of an utterance, from its beginning; all of it if None.
        """
        self.utterance_ids = sorted({*trials["enrolment"], *trials["test"]})
        place = {name: index for index, name in enumerate(self.utterance_ids)}
        self._pairs = [trials[side].map(place).to_numpy() for side in ("enrolment", "test")]
        self._targets = trials["target"].to_numpy(int)
        self._waveforms = waveforms
        self._longest = None if max_seconds is None else round(max_seconds * SAMPLE_RATE)

    def embed(self, network: SpeakerNetwork) -> Floats:
        """Embeddings (U, V) of `utterance_ids`.

        Raises:
            ValueError: an utterance is too short for the network, or its embedding not finite.
        """
        parts = []
        for start in range(0, len(self.utterance_ids), CHUNK):
            names = self.utterance_ids[start : start + CHUNK]
            waveforms = [self._waveforms.read(name)[: self._longest] for name in names]
            for name, waveform in zip(names, waveforms, strict=True):
                if len(waveform) < network.shortest:
                    raise ValueError(
                        f"validation utterance {name}: {len(waveform)} samples; the encoder needs "
                        f"{network.shortest}. Leave it out of the corpus"
                    )
            parts.append(embed(network, waveforms))
        return np.concatenate(parts)

    def metrics(self, embeddings: Floats) -> dict[str, float]:
        """`eer` (percent) and `min_dcf_0.01` (0 to 1) of the cosines of embeddings (U, V)."""
        vectors = unit_rows(embeddings.astype(np.float64))
        enrolments, tests = self._pairs
        scores = np.einsum("tv,tv->t", vectors[enrolments], vectors[tests])
        return {
            "eer": 100 * equal_error_rate(scores, self._targets)[0],
            "min_dcf_0.01": min_dcf(scores, self._targets, 0.01),
        }


class SpeakerTask:
    """An encoder and a criterion, trained together by AdamW."""

    model = "encoder"
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        network: SpeakerNetwork,
        criterion: Criterion,
        dataset: SpeakerUtterances,
        validation: Validation,
        batch_size: int,
        rates: tuple[float, float],
        schedule: Callable[[int], float],
        weight_decay: float = 0.0,
    ) -> None:
        """Set up a training.

        Args:
            network: trained in place, but for layers that it has frozen.
            criterion: with a class for each speaker of `dataset`, where it has classes.
            dataset: what it is trained on.
            validation: what it is measured on, of other speakers.
            batch_size: speakers a batch, over all processes. Each process compares the speakers of
                its own part.
            rates: learning rates of the pretrained layers, and of the new ones and the criterion.
            schedule: the factor on both in each step.
            weight_decay: of AdamW, for all but a criterion's scale and offset.

        Raises:
            ValueError: speakers or speakers a batch are too few for the criterion, or crops too
                short for the network.
        """
        self._check_part(criterion, batch_size)
        if len(dataset) < 2:
            raise ValueError(f"{len(dataset)} speaker to train on; a loss compares two or more")
        if dataset.num_samples < network.shortest:
            raise ValueError(
                f"crops of {dataset.num_samples} samples; the encoder needs {network.shortest}"
            )
        self.modules: dict[str, nn.Module] = {"encoder": network, "criterion": criterion}
        parameters = list(criterion.parameters())
        # Decay would pull a scale and an offset, which are no weights, to 0.
        decay = weight_decay if any(each.ndim > 1 for each in parameters) else 0.0
        groups = [
            (network.pretrained_parameters(), rates[0], weight_decay),
            (network.new_parameters(), rates[1], weight_decay),
            (parameters, rates[1], decay),
        ]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"encoder": adamw(groups)}
        self.dataset, self.batch_size = dataset, batch_size
        self._validation, self._schedule, self._criterion = validation, schedule, criterion

    @staticmethod
    def _check_part(criterion: Criterion, rows: int) -> None:
        if rows < criterion.fewest:
            raise ValueError(
                f"{rows} speaker(s) a batch and process; this loss needs {criterion.fewest}"
            )

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        """One update of the encoder and the criterion."""
        self._check_part(self._criterion, len(batch["label"]))
        set_rates(self.optimizers["encoder"], self._schedule(step))
        waveforms = batch["waveforms"]
        embeddings = self.modules["encoder"](waveforms.flatten(0, 1))
        loss = self.modules["criterion"](
            embeddings.unflatten(0, waveforms.shape[:2]), batch["label"]
        )
        trainer.update("encoder", loss)
        return {"loss": loss}

    def validate(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """The metrics of the validation's trials; there is nothing to listen to."""
        assert isinstance(model, SpeakerNetwork)
        return self._validation.metrics(self._validation.embed(model)), {}

    def recordings(self) -> dict[str, torch.Tensor]:
        """None."""
        return {}

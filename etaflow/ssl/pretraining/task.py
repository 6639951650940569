"""Masked prediction: what `etaflow.training.train` is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from etaflow.audio import SAMPLE_RATE
from etaflow.pitch import likeliest_pitch, pitch_loss
from etaflow.schedule import adamw, set_rates
from etaflow.ssl.pretraining.crops import IGNORED, Crops
from etaflow.ssl.pretraining.measures import neighbour_error, phone_information
from etaflow.ssl.pretraining.network import PretrainingNetwork

SPAN = 10  # frames that are masked at a time, as in HuBERT and WavLM


def draw_mask(shape: tuple[int, int], probability: float) -> torch.Tensor:
    """Which frames (B, T) are masked: spans of ten, each frame the start of one with p / 10.

    Spans may overlap, so that fewer than `probability` of the frames are masked. One is masked in
    each row at least. Drawn from PyTorch's global generator.
    """
    starts = torch.rand(shape) < probability / SPAN
    # A row without a span gets one.
    first = torch.randint(max(1, shape[1] - SPAN + 1), (shape[0],))
    starts[torch.arange(shape[0]), first] |= ~starts.any(dim=1)
    spans = F.max_pool1d(F.pad(starts.float()[:, None], (SPAN - 1, 0)), SPAN, 1)[:, 0]
    return spans > 0


def judge(
    scores: torch.Tensor, codes: torch.Tensor, asked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy and accuracy (0 to 1) of scores (B, T, K) over the frames asked for (B, T).

    Codes (B, T) of padding are left out.
    """
    targets = codes.masked_fill(~asked, IGNORED)
    known = targets != IGNORED
    loss = F.cross_entropy(scores.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)
    right = (scores.argmax(dim=2) == targets) & known
    return loss, right.sum() / known.sum()


def pitch_error(scores: torch.Tensor, pitch: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """How many of the voiced (B, T) frames are told a pitch more than a semitone off: 0 to 1.

    Args:
        scores: (B, T, BINS).
        pitch: (B, T), Hz.
        voiced: (B, T).
    """
    wrong = (likeliest_pitch(scores.float()) / pitch).log2().abs() > 1 / 12
    return (wrong & voiced).sum() / voiced.sum().clamp(min=1)


def spectrum_error(
    spectra: torch.Tensor, targets: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """The mean absolute difference of spectra (B, T, BANDS) over the frames asked for (B, T)."""
    errors = (spectra.float() - targets).abs().mean(dim=2)
    return (errors * asked).sum() / asked.sum().clamp(min=1)


@dataclass(frozen=True)
class Validation:
    """What a network is measured on, of speakers that it does not train on.

    Attributes:
        crops: of their utterances, without anything laid over them.
        phones: of each utterance whose text is known, a phone a frame (T,), "" between phones.
        speakers: of each utterance.
        seed: of the masks.
    """

    crops: Crops
    phones: Mapping[str, npt.NDArray[np.str_]]
    speakers: Mapping[str, str]
    seed: int = 0


class PretrainingTask:
    """A WavLM that predicts the clusters of masked frames, trained by AdamW."""

    model = "network"
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        network: PretrainingNetwork,
        crops: Crops,
        validation: Validation,
        batch_size: int,
        masked: float,
        seen_weight: float,
        pitch_weight: float,
        spectrum_weight: float,
        learning_rate: float,
        schedule: Callable[[int], float],
        weight_decay: float = 0.01,
    ) -> None:
        """Set up a training.

        Args:
            network: trained in place.
            crops: to train on.
            validation: to measure on.
            batch_size: crops a batch, over all processes.
            masked: see `draw_mask`; HuBERT's and WavLM's is 0.8.
            seen_weight: of the loss of frames that are not masked, HuBERT's 1 - alpha over alpha (0
                there in the end): they are learnt sooner.
            pitch_weight: of the loss of the pitch of frames that are voiced and not masked.
            spectrum_weight: of the mean absolute error of the spectra of frames not masked.
            learning_rate: of AdamW.
            schedule: the factor on it in each step.
            weight_decay: of AdamW, for matrices.
        """
        self.modules: dict[str, nn.Module] = {"network": network}
        matrices = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": adamw(
                [
                    (matrices, learning_rate, weight_decay),
                    (others, learning_rate, 0.0),
                ]
            )
        }
        self.dataset, self.batch_size = crops, batch_size
        self._masked, self._schedule, self._validation = masked, schedule, validation
        self._seen_weight, self._pitch_weight = seen_weight, pitch_weight
        self._spectrum_weight = spectrum_weight

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        """One update by the cross entropy of the masked frames, and, weighted, of the others.

        Of these those of pitch and spectrum are added, weighted.
        """
        set_rates(self.optimizers["network"], self._schedule(step))
        codes = batch["codes"]
        masked = draw_mask(tuple(codes.shape), self._masked).to(codes.device)
        scores, pitches, spectra = self.modules["network"](batch["waveform"], masked)
        loss, accuracy = judge(scores, codes, masked)
        losses = {"loss": loss, "accuracy": accuracy}
        if self._seen_weight:
            losses["seen_loss"], losses["seen_accuracy"] = judge(scores, codes, ~masked)
            loss = loss + self._seen_weight * losses["seen_loss"]
        if self._pitch_weight:
            heard = batch["voiced"] & ~masked
            losses["pitch_loss"] = pitch_loss(pitches.float(), batch["pitch"], heard)
            loss = loss + self._pitch_weight * losses["pitch_loss"]
        if self._spectrum_weight:
            spoken = ~masked & (codes != IGNORED)
            losses["spectrum_loss"] = spectrum_error(spectra, batch["spectrum"], spoken)
            loss = loss + self._spectrum_weight * losses["spectrum_loss"]
        trainer.update("network", loss)
        return losses

    def validate(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """What is measured on the validation speakers, under fixed masks.

        `loss` and `accuracy` are of masked frames, `pitch_error` and `spectrum_error` of the
        others. `phone_information_lN` and `neighbour_error_lN`, see `measures`, are what layer N
        tells of phones, if there are utterances with phones.
        """
        crops, found = self._validation.crops, []
        for start in range(0, len(crops), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(crops)))
            items = [crops[index, (self._validation.seed, index)] for index in rows]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._validation.seed + start)
                masked = draw_mask((len(items), crops.num_frames), self._masked)
            waveforms, codes, pitch, voiced, spectrum = (
                torch.stack([item[key] for item in items]).to(device)
                for key in ("waveform", "codes", "pitch", "voiced", "spectrum")
            )
            masked = masked.to(device)
            scores, pitches, spectra = model(waveforms, masked)
            errors = (
                pitch_error(pitches, pitch, voiced & ~masked),
                spectrum_error(spectra, spectrum, ~masked & (codes != IGNORED)),
            )
            found.append((*map(float, (*judge(scores, codes, masked), *errors)), len(items)))
        shares = [count / len(crops) for *_, count in found]
        metrics = {
            name: sum(share * row[place] for share, row in zip(shares, found, strict=True))
            for place, name in enumerate(("loss", "accuracy", "pitch_error", "spectrum_error"))
        }
        return metrics | self._phone_measures(model, device), {}

    def _phone_measures(self, model: Any, device: torch.device) -> dict[str, float]:
        phones, speakers = [], []
        layers: list[list[npt.NDArray[np.float32]]] = []
        for name, labels in self._validation.phones.items():
            spoken = labels != ""
            waveform = torch.from_numpy(self._validation.crops.whole(name))[None].to(device)
            outputs = [each.float().cpu().numpy()[spoken] for each in model.layers(waveform)]
            layers.append(outputs)
            phones.append(labels[spoken])
            speakers.append(np.full(int(spoken.sum()), self._validation.speakers[name]))
        if not phones:
            return {}
        labels, owners = np.concatenate(phones), np.concatenate(speakers)
        metrics = {}
        for number, parts in enumerate(zip(*layers, strict=True), start=1):
            features = np.concatenate(parts)
            metrics[f"phone_information_l{number}"] = phone_information(features, labels)
            metrics[f"neighbour_error_l{number}"] = neighbour_error(features, labels, owners)
        return metrics

    def recordings(self) -> dict[str, torch.Tensor]:
        """Nothing to listen to."""
        return {}

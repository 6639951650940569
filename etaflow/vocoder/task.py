"""Training a generator against discriminators: what `etaflow.training.train` is given."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from etaflow.pitch import pitch_loss, track_pitch
from etaflow.store import FeatureStore
from etaflow.vocoder.config import HarmonicConfig, VocoderError
from etaflow.vocoder.discriminator import Discriminator, DiscriminatorConfig, Judgement
from etaflow.vocoder.generator import Generator
from etaflow.vocoder.mel import log_mel, mel_loss
from etaflow.vocoder.segments import JoinedSegments, Segments
from etaflow.waveforms import Waveforms

MEL_WEIGHT, MATCHING_WEIGHT = 45.0, 2.0
PITCH_WEIGHT = 7.0
VALIDATION_SECONDS = 10
LISTENED = 3  # validation utterances to listen to


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> torch.Tensor:
    """Least squares, summed over discriminators: real scores to 1, generated ones to 0."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([((1 - r) ** 2).mean() + (f**2).mean() for (r, _), (f, _) in pairs]).sum()


def adversarial_loss(fake: list[Judgement]) -> torch.Tensor:
    """Least squares, summed over discriminators: generated scores to 1."""
    return torch.stack([((1 - score) ** 2).mean() for score, _ in fake]).sum()


def matching_loss(real: list[Judgement], fake: list[Judgement]) -> torch.Tensor:
    """L1 distance of feature maps, summed over layers and discriminators."""
    return torch.stack(
        [
            F.l1_loss(fake_map, real_map)
            for (_, real_maps), (_, fake_maps) in zip(real, fake, strict=True)
            for real_map, fake_map in zip(real_maps, fake_maps, strict=True)
        ]
    ).sum()


def split_judgements(judged: list[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """The judgements of both halves of a batch."""
    halves = [(score.chunk(2), [each.chunk(2) for each in maps]) for score, maps in judged]
    first, second = (
        [(score[half], [each[half] for each in maps]) for score, maps in halves] for half in (0, 1)
    )
    return first, second


class VocoderTask:
    """HiFi-GAN training (arXiv 2010.05646), losses and optimisers as in kNN-VC.

    The generator minimises 45 L1(log-mel), and from `adversarial_from` on least-squares GAN and
    2 feature matching besides. A harmonic generator minimises the cross entropy of its pitch, too,
    and speaks in training at the pitch of the recording.
    """

    model = "generator"

    def __init__(
        self,
        generator: Generator,
        discriminator: DiscriminatorConfig,
        store: FeatureStore,
        waveforms: Waveforms,
        train_ids: Sequence[str],
        validation_ids: Sequence[str],
        segment_frames: int = 22,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
        lr_decay: float = 0.999,
        adversarial_from: int = 0,
        also: FeatureStore | None = None,
        mel_windows: Sequence[float] | None = None,
    ) -> None:
        """Set up a training.

        Args:
            generator: trained in place.
            discriminator: the size of the discriminators; their weights are drawn from PyTorch's
                global generator.
            store: the features that the generator reads, of whatever kind.
            waveforms: what it shall say, at the generator's sampling rate.
            train_ids: utterances to train on, at least one, each in `store` or `also`.
            validation_ids: utterances to measure `mel_distance` on, at least one, none of
                `train_ids`.
            segment_frames: frames a segment.
            batch_size: segments a batch, over all processes.
            learning_rate: of AdamW, betas (0.8, 0.99), for both.
            lr_decay: factor on the learning rate after each epoch.
            adversarial_from: step at which the discriminators join.
            also: other features of the same kind to train on as well, as raw ones beside
                prematched ones.
            mel_windows: of the mel loss, ms, in place of kNN-VC's one (see `mel_loss`).

        Raises:
            VocoderError: no or shared utterances, or a store that does not fit the generator.
        """
        config = generator.config
        asked = (config.feature_dim, config.sample_rate / config.hop_length)
        given = (store.dim, store.meta.sample_rate / store.meta.hop_length)
        if asked != given:
            raise VocoderError(
                f"features of (dim, frames a second) {given} for a generator of {asked}"
            )
        if waveforms.sample_rate != config.sample_rate:
            raise VocoderError(
                f"waveforms at {waveforms.sample_rate} Hz for a generator at {config.sample_rate}"
            )
        if not train_ids or not validation_ids or set(train_ids) & set(validation_ids):
            raise VocoderError(
                f"{len(train_ids)} utterances to train and {len(validation_ids)} to validate on, "
                f"{len(set(train_ids) & set(validation_ids))} in both: both need some of their own"
            )
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            "discriminator": Discriminator(discriminator),
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.8, 0.99))
            for name, module in self.modules.items()
        }
        stores = [each for each in (store, also) if each is not None]
        owned = [sorted({*train_ids} & {*each.utterance_ids}) for each in stores]
        self.dataset = JoinedSegments(
            [
                Segments(each, waveforms, names, segment_frames)
                for each, names in zip(stores, owned, strict=True)
            ]
        )
        self.batch_size, self.sample_rate = batch_size, config.sample_rate
        self._longest = VALIDATION_SECONDS * config.sample_rate // config.hop_length
        self._store, self._waveforms = store, waveforms
        self._hop_length = config.hop_length
        self._log_mel = partial(log_mel, sample_rate=config.sample_rate)
        self._mel_windows, self._harmonic = mel_windows, isinstance(config, HarmonicConfig)
        self._validation_ids = list(validation_ids)
        self._rate, self._decay, self._adversarial_from = learning_rate, lr_decay, adversarial_from

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        """One update of the discriminators, then one of the generator."""
        rate = self._rate * self._decay ** (step * self.batch_size // len(self.dataset))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        real = batch["waveform"].unsqueeze(1)
        # Padding is as silent in what was generated as in the recording: nothing is learnt of it.
        places = torch.arange(real.shape[2], device=real.device)
        padding = places >= batch["num_samples"][:, None, None]
        features, told = batch["features"], None
        if self._harmonic:
            pitch, voiced = track_pitch(batch["waveform"], features.shape[1], self.sample_rate)
            fake, told = self.modules["generator"](features, pitch, batch["first_frame"])
        else:
            fake = self.modules["generator"](features)
        fake = fake.masked_fill(padding, 0)
        mel = mel_loss(fake.squeeze(1), batch["waveform"], self.sample_rate, self._mel_windows)
        losses = {"mel_loss": mel}
        total = MEL_WEIGHT * mel
        if told is not None:
            losses["pitch_loss"] = pitch_loss(told, pitch, voiced)
            total = total + PITCH_WEIGHT * losses["pitch_loss"]
        if step >= self._adversarial_from:
            losses["discriminator_loss"] = self._update_discriminator(real, fake, trainer)
            discriminator = trainer.plain("discriminator").requires_grad_(False)
            with torch.no_grad():
                judged_real = discriminator(real)
            judged_fake = discriminator(fake)
            losses["adversarial_loss"] = adversarial_loss(judged_fake)
            losses["matching_loss"] = matching_loss(judged_real, judged_fake)
            total = total + losses["adversarial_loss"] + MATCHING_WEIGHT * losses["matching_loss"]
        trainer.update("generator", total)
        return losses

    def _update_discriminator(
        self, real: torch.Tensor, fake: torch.Tensor, trainer: Any
    ) -> torch.Tensor:
        discriminator = self.modules["discriminator"].requires_grad_(True)
        # One call: the wrapper of several processes expects as many backward passes as calls.
        judged = discriminator(torch.cat([real, fake.detach()]))
        loss = discriminator_loss(*split_judgements(judged))
        trainer.update("discriminator", loss)
        return loss

    def validate(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """`mel_distance`: mean absolute log-mel difference, averaged over held-out utterances.

        Utterances are synthesised whole, up to their first ten seconds; the first few are given
        to listen to.
        """
        distances, sounds = [], dict[str, torch.Tensor]()
        for name in self._validation_ids:
            features = torch.from_numpy(self._store.read(name, 0, self._longest)).to(device)
            waveform = self._recording(name).to(device)
            synthesis = model(features[None])[:, 0]
            difference = self._log_mel(synthesis) - self._log_mel(waveform[None])
            distances.append(difference.abs().mean())
            if len(sounds) < LISTENED:
                sounds[f"synthesis/{name}"] = synthesis[0]
        return {"mel_distance": float(torch.stack(distances).mean())}, sounds

    def recordings(self) -> dict[str, torch.Tensor]:
        """The recordings of what `validate` gives to listen to."""
        return {
            f"recording/{name}": self._recording(name) for name in self._validation_ids[:LISTENED]
        }

    def _recording(self, name: str) -> torch.Tensor:
        """The part of an utterance that is validated on, as long as its frames."""
        frames = len(self._store.read(name, 0, self._longest))
        size = frames * self._hop_length
        waveform = torch.from_numpy(self._waveforms.read(name)[:size])
        return F.pad(waveform, (0, size - len(waveform)))

"""Training a separator: what `etaflow.training.train` is given."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torchmetrics.functional.audio.pit import pit_permutate

from etaflow.schedule import adamw, set_rates
from etaflow.separation.crops import MixtureCrops, MixtureFiles
from etaflow.separation.loss import ENOUGH, pit_loss, pit_si_snr, si_snr
from etaflow.separation.network import Separator
from etaflow.separation.separate import separate

LISTENED = 3  # validation mixtures to listen to


def freeze_for(network: Separator, trained: str | Mapping[str, int]) -> None:
    """Leave all of a network to train, or its last layers only.

    Args:
        network: pretrained, or new, of which all is trained.
        trained: `all`; `decoder`, which is the last layer; or `{blocks: n}`, the last n blocks and
            what follows them.

    Raises:
        ValueError: there is no such choice, there are fewer blocks, or the network is new.
    """
    if trained == "all":
        return
    if not network.pretrained:
        raise ValueError(f"trained: {trained} leaves the rest as it came, and this network is new")
    if trained == "decoder":
        network.freeze(1)
        return
    if not isinstance(trained, Mapping) or trained.keys() != {"blocks"}:
        raise ValueError(f"trained: {trained!r}; say all, decoder, or {{blocks: n}}")
    blocks = trained["blocks"]
    if not 1 <= blocks <= network.num_blocks:
        raise ValueError(f"{blocks} blocks to train; the network has {network.num_blocks}")
    network.freeze(blocks + network.layers_above_blocks)


def check_mixtures(network: Separator, files: MixtureFiles, what: str) -> None:
    """See that a network can separate these mixtures.

    Raises:
        ValueError: it is for another rate or number of speakers.
    """
    if files.sample_rate != network.sample_rate:
        raise ValueError(
            f"{what} mixtures are at {files.sample_rate} Hz, the separator at "
            f"{network.sample_rate} Hz: mix them at its rate"
        )
    if files.num_sources != network.num_speakers:
        raise ValueError(
            f"{what} mixtures have {files.num_sources} speaker(s), the separator has "
            f"{network.num_speakers}"
        )


class Validation:
    """Whole mixtures of held-out speakers."""

    def __init__(self, files: MixtureFiles) -> None:
        """Measure on all of these."""
        self.files = files

    def measure(self, network: Separator) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """Means over the mixtures in dB, and a few estimates to listen to.

        `loss` is `pit_loss`, `si_snr` is `pit_si_snr`, and `si_snri` that less the mean SI-SNR of
        the mixture to its sources, all in float64. An estimate comes in the order and at the peak
        of its source.

        Raises:
            ValueError: a source is silent, or a mixture cannot be separated.
        """
        rows, sounds = [], {}
        for index, name in enumerate(self.files.names):
            mixture, sources = self.files.mixture(index)
            if not np.ptp(sources, axis=1).all():
                raise ValueError(f"validation mixture {name}: a source is silent; leave it out")
            try:
                found = separate(network, mixture)
            except ValueError as error:
                raise ValueError(f"validation mixture {name}: {error}") from error
            estimates, references = (
                torch.from_numpy(each.astype(np.float64))[None] for each in (found, sources)
            )
            values, order = pit_si_snr(estimates, references)
            whole = torch.from_numpy(mixture.astype(np.float64)).expand_as(references)
            before = si_snr(whole, references).mean()
            value = float(values)
            rows.append((-min(value, ENOUGH), value, value - float(before)))
            if index < LISTENED:
                for number, estimate in enumerate(pit_permutate(estimates, order)[0]):
                    gain = references[0, number].abs().max() / estimate.abs().max().clamp_min(1e-9)
                    sounds[f"estimate_{number + 1}/{name}"] = gain * estimate
        means = np.mean(rows, axis=0).tolist()
        return dict(zip(("loss", "si_snr", "si_snri"), means, strict=True)), sounds

    def recordings(self) -> dict[str, torch.Tensor]:
        """The mixtures and sources of what there is to listen to."""
        sounds = {}
        for index, name in enumerate(self.files.names[:LISTENED]):
            mixture, sources = self.files.mixture(index)
            sounds[f"mixture/{name}"] = torch.from_numpy(mixture)
            for number, source in enumerate(sources):
                sounds[f"source_{number + 1}/{name}"] = torch.from_numpy(source)
        return sounds


class SeparationTask:
    """A separator, trained by AdamW on the permutation-invariant SI-SNR."""

    model = "separator"

    def __init__(
        self,
        network: Separator,
        dataset: MixtureCrops,
        validation: Validation,
        batch_size: int,
        rates: tuple[float, float],
        schedule: Callable[[int], float],
        weight_decay: float = 0.0,
    ) -> None:
        """Set up a training.

        Args:
            network: trained in place, but for layers that it has frozen.
            dataset: what it is trained on.
            validation: what it is measured on, of other speakers.
            batch_size: mixtures a batch, over all processes.
            rates: learning rates of the pretrained layers, and of the new ones.
            schedule: the factor on both in each step.
            weight_decay: of AdamW.

        Raises:
            ValueError: the mixtures are not of the network's rate or number of speakers, or the
                crops too short or too long for it.
        """
        check_mixtures(network, dataset.files, "training")
        check_mixtures(network, validation.files, "validation")
        network.check_length(dataset.num_samples)
        self.sample_rate = network.sample_rate
        self.modules: dict[str, nn.Module] = {"separator": network}
        groups = [
            (network.pretrained_parameters(), rates[0], weight_decay),
            (network.new_parameters(), rates[1], weight_decay),
        ]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"separator": adamw(groups)}
        self.dataset, self.batch_size = dataset, batch_size
        self._validation, self._schedule = validation, schedule

    def training_step(
        self, batch: dict[str, Any], step: int, trainer: Any
    ) -> dict[str, torch.Tensor]:
        """One update of the separator."""
        set_rates(self.optimizers["separator"], self._schedule(step))
        estimates = self.modules["separator"](batch["mixture"])
        loss = pit_loss(estimates, batch["sources"]).mean()
        trainer.update("separator", loss)
        return {"loss": loss}

    def validate(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """`Validation.measure`."""
        assert isinstance(model, Separator)
        return self._validation.measure(model)

    def recordings(self) -> dict[str, torch.Tensor]:
        """Mixtures and sources to compare the estimates with."""
        return self._validation.recordings()

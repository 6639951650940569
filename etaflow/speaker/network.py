"""Speaker encoders as networks: what trains them, saves them and runs them alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.batches import similar_lengths
from etaflow.models import ModelInfo
from etaflow.store import Floats

# Larger batches are slower on a CPU: the system maps, and clears, their memory anew at each layer.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0


class SpeakerNetwork(nn.Module):
    """Waveforms in, embeddings out; an utterance gets the same alone and in company.

    Attributes:
        dim: V, the size of an embedding.
        shortest: samples that a waveform needs.
        layers: its parts from input to output, which `freeze` counts.
        pretrained: how many of the layers, from the input, came with weights; the others are new.
    """

    dim: int
    shortest: int
    layers: list[nn.Module]
    pretrained: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V) of 16 kHz waveforms: (B, T), or a list of (T,) of different lengths."""
        raise NotImplementedError

    def sizes(self) -> dict[str, Any]:
        """What the network is made of, as JSON; with the weights it makes the network again."""
        raise NotImplementedError

    def freeze(self, trained: int | None) -> None:
        """Train only the uppermost `trained` of the pretrained layers, and the new ones.

        Frozen layers get no gradient and stay in evaluation mode, batch statistics among it.

        Args:
            trained: 0 to `pretrained`; None for all.

        Raises:
            ValueError: there are not so many.
        """
        if trained is None:
            trained = self.pretrained
        if not 0 <= trained <= self.pretrained:
            raise ValueError(
                f"{trained} of the pretrained layers to train; there are {self.pretrained}"
            )
        self._frozen = self.layers[: self.pretrained - trained]
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> "SpeakerNetwork":
        """As any module, but for frozen layers."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of the pretrained layers that are trained."""
        layers = self.layers[: self.pretrained]
        return [p for layer in layers for p in layer.parameters() if p.requires_grad]

    def new_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained."""
        known = {id(parameter) for parameter in self.pretrained_parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in known]


@torch.inference_mode()
def embed(network: SpeakerNetwork, waveforms: Sequence[Waveform], name: str = "encoder") -> Floats:
    """Embeddings (U, V) float32 of mono 16 kHz waveforms (T,), in batches of similar length.

    Args:
        network: in evaluation mode, on its device.
        waveforms: of any lengths.
        name: of the encoder, for errors.

    Raises:
        ValueError: a waveform is too short, or an embedding is not finite.
    """
    for index, waveform in enumerate(waveforms):
        if len(waveform) < network.shortest:
            raise ValueError(
                f"waveform {index} of {len(waveforms)} has {len(waveform)} samples; "
                f"{name} needs {network.shortest}"
            )
    device = next(network.parameters()).device
    embeddings = np.empty((len(waveforms), network.dim), np.float32)
    lengths = [len(waveform) for waveform in waveforms]
    seconds = CPU_BATCH_SECONDS if device.type == "cpu" else GPU_BATCH_SECONDS
    for batch in similar_lengths(lengths, int(seconds * SAMPLE_RATE)):
        inputs = [torch.from_numpy(np.ascontiguousarray(waveforms[i])).to(device) for i in batch]
        # Convolutions in TF32, PyTorch's default on a GPU, would be off by 1e-3.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            embeddings[batch] = network(inputs).float().cpu().numpy()
    if not np.isfinite(embeddings).all():
        bad = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        raise ValueError(f"the embedding of waveform {bad} of {len(embeddings)} is not finite")
    return embeddings


class NetworkEncoder:
    """A network with trained weights, as a `SpeakerEncoder`."""

    def __init__(
        self, info: ModelInfo, network: SpeakerNetwork, device: str | torch.device = "cpu"
    ) -> None:
        self.info, self.dim, self.shortest = info, network.dim, network.shortest
        self.network = network.eval().requires_grad_(False).to(device)

    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, V) as the network gives them; see `SpeakerEncoder.embed`."""
        return embed(self.network, waveforms, self.info.name)

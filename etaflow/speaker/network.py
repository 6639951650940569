"""Speaker encoders as networks: what trains them, saves them and runs them alike."""

from collections.abc import Sequence

import numpy as np
import torch

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.batches import similar_lengths
from etaflow.layered import LayeredNetwork
from etaflow.models import ModelInfo
from etaflow.store import Floats

# Larger batches are slower on a CPU: the system maps, and clears, their memory anew at each layer.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0


class SpeakerNetwork(LayeredNetwork):
    """Waveforms in, embeddings out; an utterance gets the same alone and in company.

    Attributes:
        dim: V, the size of an embedding.
        shortest: samples that a waveform needs.
    """

    dim: int
    shortest: int

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V) of 16 kHz waveforms: (B, T), or a list of (T,) of different lengths."""
        raise NotImplementedError


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

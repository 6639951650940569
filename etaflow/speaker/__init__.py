"""Speaker encoders behind one interface: waveforms in, one embedding each out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from etaflow.audio import Waveform
from etaflow.models import ModelInfo, read_model_info
from etaflow.store import Floats


class SpeakerEncoder(Protocol):
    """Embeds utterances; an utterance gets the same embedding alone and in a batch.

    Attributes:
        info: what it is.
        dim: V, the size of an embedding.
        shortest: samples that a waveform needs.
    """

    info: ModelInfo
    dim: int
    shortest: int

    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, V) float32 of mono 16 kHz waveforms (T,).

        Raises:
            ValueError: a waveform is too short, or an embedding is not finite.
        """
        ...


def load_speaker_encoder(source: str | Path, device: str | torch.device = "cpu") -> SpeakerEncoder:
    """Load the encoder of a fetched model folder.

    Raises:
        ModelError: the folder's architecture is no speaker encoder, or its weights do not fit.
    """
    info, _ = read_model_info(source)
    if info.architecture == "resemblyzer":
        from etaflow.speaker.resemblyzer import Resemblyzer

        return Resemblyzer(info, torch.device(device))
    from etaflow.speaker.network import NetworkEncoder
    from etaflow.speaker.networks import load_network

    return NetworkEncoder(*load_network(source), device)

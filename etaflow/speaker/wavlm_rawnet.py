"""Frames of a self-supervised encoder and the raw waveform, fused into one embedding."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from etaflow.models import ModelError
from etaflow.speaker.backbone import Backbone, mean_frames
from etaflow.speaker.network import SpeakerNetwork
from etaflow.speaker.rawnet import RawNet


class WavLMRawNet(SpeakerNetwork):
    """Batch norm and a linear layer on the mean of a layer's frames and a RawNet's embedding."""

    def __init__(self, backbone: Backbone, channels: int, dim: int) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim
        self.rawnet = RawNet(channels, dim)
        # The mean frame of all speech is many times longer than what tells speakers apart.
        self.norm = nn.BatchNorm1d(backbone.dim + dim)
        self.linear = nn.Linear(backbone.dim + dim, dim)
        self.shortest = max(backbone.grid.field, self.rawnet.shortest)
        self.layers = [*backbone.layers, self.rawnet, self.norm, self.linear]
        self.pretrained = len(backbone.layers)

    @classmethod
    def create(cls, settings: Mapping[str, Any], model: Path | None) -> "WavLMRawNet":
        """Of the `layer` of a model, filters in `channels` bands, and `dim` numbers.

        Raises:
            ModelError: the model is not given, or cannot be used, or has no such layer; or
                `channels` is under 4.
        """
        if model is None:
            raise ModelError(f"the folder of the model {settings.get('model')} is not given")
        if settings["channels"] < 4:
            raise ModelError(f"wavlm-rawnet: {settings['channels']} channels; it needs 4 or more")
        backbone = Backbone.from_model(model, settings["normalize"], settings["layer"])
        return cls(backbone, settings["channels"], settings["dim"])

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "WavLMRawNet":
        """The network that has these `sizes()`, with random weights."""
        return cls(Backbone.from_sizes(sizes["backbone"]), sizes["channels"], sizes["dim"])

    def sizes(self) -> dict[str, Any]:
        """See `SpeakerNetwork.sizes`."""
        return {
            "kind": "wavlm-rawnet",
            "backbone": self.backbone.sizes(),
            "channels": self.rawnet.channels,
            "dim": self.dim,
        }

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V); see `SpeakerNetwork.forward`."""
        sizes = [len(waveform) for waveform in waveforms]
        padded = pad_sequence([*waveforms], batch_first=True)
        lengths = None
        if len(set(sizes)) > 1:
            lengths = torch.tensor(sizes, device=padded.device)
        frames = mean_frames(*self.backbone(waveforms))
        joined = torch.cat([frames, self.rawnet(padded, lengths)], dim=1)
        return self.linear(self.norm(joined))

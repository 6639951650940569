"""The mean of a self-supervised encoder's frames, as it is or through a linear layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etaflow.models import ModelError
from etaflow.speaker.backbone import Backbone, mean_frames
from etaflow.speaker.network import SpeakerNetwork


class MeanNetwork(SpeakerNetwork):
    """Mean over the frames of one layer; a linear layer on it unless `dim` is None."""

    def __init__(self, backbone: Backbone, dim: int | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = None if dim is None else nn.Linear(backbone.dim, dim)
        self.dim = backbone.dim if dim is None else dim
        self.shortest = backbone.grid.field
        self.layers = [*backbone.layers] if self.linear is None else [*backbone.layers, self.linear]
        self.pretrained = len(backbone.layers)

    @classmethod
    def create(cls, settings: Mapping[str, Any], model: Path | None) -> "MeanNetwork":
        """Of the `layer` of a model, to `dim` numbers.

        Raises:
            ModelError: the model is not given, or cannot be used, or has no such layer.
        """
        if model is None:
            raise ModelError(f"the folder of the model {settings.get('model')} is not given")
        backbone = Backbone.from_model(model, settings["normalize"], settings["layer"])
        return cls(backbone, settings["dim"])

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "MeanNetwork":
        """The network that has these `sizes()`, with random weights."""
        return cls(Backbone.from_sizes(sizes["backbone"]), sizes["dim"])

    def sizes(self) -> dict[str, Any]:
        """See `SpeakerNetwork.sizes`."""
        dim = None if self.linear is None else self.dim
        return {"kind": "mean", "backbone": self.backbone.sizes(), "dim": dim}

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V); see `SpeakerNetwork.forward`."""
        mean = mean_frames(*self.backbone(waveforms))
        return mean if self.linear is None else self.linear(mean)

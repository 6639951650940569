"""WavLM with an x-vector head: `WavLMForXVector` of transformers.

The design of the SUPERB benchmark (Yang et al. 2021, arXiv 2105.01051), in which
microsoft/wavlm-base-sv and microsoft/wavlm-base-plus-sv are published.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from etaflow.models import ModelError, ModelInfo
from etaflow.speaker.backbone import VARIANCE_FLOOR, Backbone, Combine, quiet_config
from etaflow.speaker.network import SpeakerNetwork
from etaflow.speaker.unispeech import LayerSum
from etaflow.ssl.loading import load_model


class WavLMXVector(SpeakerNetwork):
    """Frames of one layer, or of all weighted; time-delay layers; mean and standard deviation."""

    def __init__(
        self,
        backbone: Backbone,
        weighted: bool,
        channels: Sequence[int],
        kernels: Sequence[int],
        dilations: Sequence[int],
        dim: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer_sum = LayerSum(backbone.depth + 1) if weighted else None
        self.projector = nn.Linear(backbone.dim, channels[0])
        inputs = [channels[0], *channels[:-1]]
        shapes = zip(inputs, channels, kernels, dilations, strict=True)
        self.convs = nn.ModuleList(
            nn.Conv1d(into, out, kernel, dilation=dilation)
            for into, out, kernel, dilation in shapes
        )
        self.linear = nn.Linear(2 * channels[-1], dim)
        self.dim = dim
        self._sizes = {
            "channels": list(channels),
            "kernels": list(kernels),
            "dilations": list(dilations),
        }
        reach = [dilation * (k - 1) for dilation, k in zip(dilations, kernels, strict=True)]
        self._lost = sum(reach)  # frames; a deviation needs two of the rest
        self.shortest = backbone.grid.field + (self._lost + 1) * backbone.grid.hop_length
        mixing = [] if self.layer_sum is None else [self.layer_sum]
        self.layers = [*backbone.layers, *mixing, self.projector, *self.convs, self.linear]

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "WavLMXVector":
        """The network that has these `sizes()`, with random weights."""
        names = ("weighted", "channels", "kernels", "dilations", "dim")
        return cls(Backbone.from_sizes(sizes["backbone"]), **{name: sizes[name] for name in names})

    @classmethod
    def create(cls, settings: Mapping[str, Any], model: Path | None = None) -> "WavLMXVector":
        """There are only published ones.

        Raises:
            ModelError: always.
        """
        raise ModelError("wavlm-sv is published only: say pretrained and its name, not kind")

    @classmethod
    def from_published(cls, info: ModelInfo, files: Path) -> "WavLMXVector":
        """Read a folder of transformers.

        Raises:
            ModelError: the folder holds no such model, or says not whether waveforms are
                normalised, or a weight is missing.
        """
        from transformers import AutoConfig, WavLMForXVector

        try:
            config = AutoConfig.from_pretrained(
                files, local_files_only=True, trust_remote_code=False
            )
            preparation = json.loads((files / "preprocessor_config.json").read_text("utf-8"))
            normalize = bool(preparation["do_normalize"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{files}: a config.json, and a preprocessor_config.json with do_normalize, are "
                f"needed ({error!r})"
            ) from error
        if config.model_type != "wavlm":
            raise ModelError(f"{files}: a model of type {config.model_type!r}, not wavlm")
        heads = ("classifier.", "objective.")  # of the training
        try:
            model: Any = load_model(
                files, quiet_config(config), WavLMForXVector, (*heads, "wavlm.masked_spec_embed")
            )
        except RuntimeError as error:
            raise ModelError(f"{files}: weights of other shapes than in its config.json") from error
        weighted = bool(config.use_weighted_layer_sum)
        network = cls(
            Backbone(model.wavlm, normalize, VARIANCE_FLOOR, final_norm=not weighted),
            weighted,
            config.tdnn_dim,
            config.tdnn_kernel,
            config.tdnn_dilation,
            config.xvector_output_dim,
        )
        with torch.no_grad():
            if network.layer_sum is not None:
                network.layer_sum.weight.copy_(model.layer_weights)
            convs: Any = network.convs
            for conv, layer in zip(convs, model.tdnn, strict=True):
                # A matrix on windows of frames, a frame's channels side by side.
                kernel = layer.kernel.weight.unflatten(1, (layer.kernel_size, layer.in_conv_dim))
                conv.weight.copy_(kernel.transpose(1, 2))
                conv.bias.copy_(layer.kernel.bias)
        network.projector.load_state_dict(model.projector.state_dict())
        network.linear.load_state_dict(model.feature_extractor.state_dict())
        return network

    def sizes(self) -> dict[str, Any]:
        """See `SpeakerNetwork.sizes`."""
        return {
            "kind": "wavlm-sv",
            "backbone": self.backbone.sizes(),
            "weighted": self.layer_sum is not None,
            "dim": self.dim,
            **self._sizes,
        }

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V); see `SpeakerNetwork.forward`."""
        combine: Combine | None = self.layer_sum
        frames, counts = self.backbone(waveforms, combine) if combine else self.backbone(waveforms)
        hidden = self.projector(frames).transpose(1, 2)
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        left = (counts - self._lost)[:, None]
        mask = torch.arange(hidden.shape[2], device=hidden.device) < left
        hidden = hidden * mask[:, None]
        mean = hidden.sum(2) / left
        distance = (hidden - mean[..., None]) * mask[:, None]
        variance = distance.square().sum(2) / (left - 1)
        # The root of zero has no gradient.
        deviation = variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
        return self.linear(torch.cat([mean, deviation], dim=1))

"""UniSpeech's speaker encoder: all layers of a self-supervised model, weighted, into ECAPA-TDNN.

Chen et al. 2022, WavLM, arXiv 2110.13900, section V-B; the design of
https://github.com/microsoft/UniSpeech, downstreams/speaker_verification.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from etaflow.models import ModelError, ModelInfo
from etaflow.speaker.backbone import Backbone
from etaflow.speaker.network import SpeakerNetwork
from etaflow.weights import fill, read_checkpoint

DILATIONS, SCALE = (2, 3, 4), 8
NORM_EPS, DEVIATION_FLOOR = 1e-5, 1e-9


def _masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over time (B, C, 1) of (B, C, T); `mask` (B, 1, T) is 1 for frames."""
    return (hidden * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)


class LayerSum(nn.Module):
    """Sum of the hidden states, weighted by a softmax."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count))

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        """(B, T, D) of as many."""
        total = torch.zeros_like(states[0])
        for weight, state in zip(self.weight.softmax(0), states, strict=True):
            total = total + weight * state
        return total


class ConvReluNorm(nn.Module):
    """Convolution, ReLU, batch norm; the padding of utterances stays zero."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=padding, dilation=dilation)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C, T) to (B, N, T)."""
        return self.bn(F.relu(self.conv(hidden))) * mask


class Block(nn.Module):
    """SE-Res2 block (arXiv 2005.07143, figure 2); the last group of channels passes unchanged."""

    def __init__(self, channels: int, squeeze: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.first, self.last = ConvReluNorm(channels, channels), ConvReluNorm(channels, channels)
        self.groups = nn.ModuleList(
            ConvReluNorm(width, width, 3, dilation) for _ in range(SCALE - 1)
        )
        self.squeeze = nn.Linear(channels, squeeze)
        self.excite = nn.Linear(squeeze, channels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C, T) to the same."""
        *groups, last = self.first(hidden, mask).chunk(SCALE, dim=1)
        outputs: list[torch.Tensor] = []
        for conv, group in zip(self.groups, groups, strict=True):
            outputs.append(conv(outputs[-1] + group if outputs else group, mask))
        inner = self.last(torch.cat([*outputs, last], dim=1), mask)
        mean = _masked_mean(inner, mask).squeeze(2)
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        return inner * scale[..., None] + hidden


class Pooling(nn.Module):
    """Attentive mean and standard deviation (Okabe et al. 2018, arXiv 1803.10963), normed."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.inner = nn.Conv1d(channels, attention, 1)
        self.outer = nn.Conv1d(attention, channels, 1)
        self.bn = nn.BatchNorm1d(2 * channels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C, T) to (B, 2 C)."""
        scores = self.outer(torch.tanh(self.inner(hidden)))
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(2)
        mean = (weights * hidden).sum(2, keepdim=True)
        variance = (weights * (hidden - mean).square()).sum(2)
        deviation = torch.sqrt(variance.clamp(min=DEVIATION_FLOOR))
        return self.bn(torch.cat([mean.squeeze(2), deviation], dim=1))


class WeightedNetwork(SpeakerNetwork):
    """Hidden states of all layers, weighted; each channel normed over time; ECAPA-TDNN."""

    def __init__(
        self, backbone: Backbone, channels: int, pooled: int, attention: int, squeeze: int, dim: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer_sum = LayerSum(backbone.depth + 1)
        self.entry = ConvReluNorm(backbone.dim, channels, 5)
        self.blocks = nn.ModuleList(Block(channels, squeeze, dilation) for dilation in DILATIONS)
        self.merge = nn.Conv1d(len(DILATIONS) * channels, pooled, 1)
        self.pooling = Pooling(pooled, attention)
        self.linear = nn.Linear(2 * pooled, dim)
        self.dim = dim
        self.shortest = backbone.grid.field + backbone.grid.hop_length  # a variance needs two
        self.layers = [
            *backbone.layers,
            self.layer_sum,
            self.entry,
            *self.blocks,
            self.merge,
            self.pooling,
            self.linear,
        ]
        self.pretrained = len(backbone.layers)

    @classmethod
    def create(cls, settings: Mapping[str, Any], model: Path | None) -> "WeightedNetwork":
        """On a model; of `channels` and `dim`, the rest in the published proportions.

        Raises:
            ModelError: the model is not given, or cannot be used; or the channels are no multiple
                of 8.
        """
        if model is None:
            raise ModelError(f"the folder of the model {settings.get('model')} is not given")
        width = settings["channels"]
        if width % SCALE:
            raise ModelError(f"weighted: {width} channels; it has to be a multiple of {SCALE}")
        backbone = Backbone.from_model(model, settings["normalize"], final_norm=True)
        inner = min(128, max(SCALE, width // 4))
        return cls(backbone, width, 3 * width, inner, inner, settings["dim"])

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "WeightedNetwork":
        """The network that has these `sizes()`, with random weights."""
        names = ("channels", "pooled", "attention", "squeeze", "dim")
        return cls(Backbone.from_sizes(sizes["backbone"]), **{name: sizes[name] for name in names})

    @classmethod
    def from_published(cls, info: ModelInfo, files: Path) -> "WeightedNetwork":
        """Read a checkpoint of UniSpeech's on WavLM or HuBERT: the one `.pth` or `.pt` of a folder.

        Raises:
            ModelError: there is no such file, or several; or it is no such checkpoint; or a weight
                is missing, unknown, or of another shape.
        """
        from etaflow.speaker.fairseq import unispeech_sizes, unispeech_state

        found = sorted(path for path in files.rglob("*.pt*") if path.suffix in (".pth", ".pt"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ModelError(f"one .pth or .pt is needed in {files}, there is {names}")
        content = read_checkpoint(found[0])
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ModelError(f"{found[0]}: a checkpoint of UniSpeech's has a key model")
        try:
            network = cls.from_sizes(unispeech_sizes(content["model"]))
            state = unispeech_state(content["model"])
        except ModelError as error:
            raise ModelError(f"{found[0]}: {error}") from error
        fill(network, state, found[0])
        return network

    def sizes(self) -> dict[str, Any]:
        """See `SpeakerNetwork.sizes`."""
        block: Any = self.blocks[0]
        return {
            "kind": "weighted",
            "backbone": self.backbone.sizes(),
            "channels": self.entry.conv.out_channels,
            "pooled": self.merge.out_channels,
            "attention": self.pooling.inner.out_channels,
            "squeeze": block.squeeze.out_features,
            "dim": self.dim,
        }

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V); see `SpeakerNetwork.forward`.

        Raises:
            ValueError: in training, the waveforms are not of one length.
        """
        if self.training and len({len(waveform) for waveform in waveforms}) > 1:
            raise ValueError(
                "waveforms of different lengths in training: the batch norms would count padding"
            )
        frames, counts = self.backbone(waveforms, self.layer_sum)
        mask = (torch.arange(frames.shape[1], device=frames.device) < counts[:, None])[:, None]
        mask = mask.to(frames.dtype)
        hidden = frames.transpose(1, 2)
        hidden = hidden - _masked_mean(hidden, mask)
        variance = _masked_mean(hidden.square(), mask)
        hidden = hidden / torch.sqrt(variance + NORM_EPS) * mask
        hidden = self.entry(hidden, mask)
        outputs = []
        for block in self.blocks:
            hidden = block(hidden, mask)
            outputs.append(hidden)
        merged = F.relu(self.merge(torch.cat(outputs, dim=1)))
        return self.linear(self.pooling(merged, mask))

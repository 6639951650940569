"""Conv-TasNet (Luo and Mesgarani 2019, arXiv:1809.07454), by torchaudio."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchaudio.models import ConvTasNet

from etaflow.models import ModelError
from etaflow.separation.network import Separator

_COUNTS = ("sample_rate", "speakers", "channels", "kernel", "blocks", "layers")


class ConvTasNetSeparator(Separator):
    """A filter bank, masks of its output by stacks of dilated convolutions, and back."""

    shortest = 1

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self._sizes = dict(sizes)
        kernel, channels = sizes["kernel"], sizes["channels"]
        if kernel % 2 or channels % 4 or min(sizes[name] for name in _COUNTS) < 1:
            raise ModelError(
                f"conv-tasnet: {sizes}; the kernel has to be a multiple of 2, the channels of 4, "
                "and nothing less than 1"
            )
        self.sample_rate, self.num_speakers = sizes["sample_rate"], sizes["speakers"]
        self.step = kernel // 2
        self.network = ConvTasNet(
            num_sources=self.num_speakers,
            enc_kernel_size=kernel,
            enc_num_feats=channels,
            msk_kernel_size=3,
            msk_num_feats=channels // 4,
            msk_num_hidden_feats=channels,
            msk_num_layers=sizes["layers"],
            msk_num_stacks=sizes["blocks"],
            msk_activate="relu",
        )
        masks, layers = self.network.mask_generator, sizes["layers"]
        convolutions = masks.conv_layers
        self.layers = [
            self.network.encoder,
            nn.ModuleList([masks.input_norm, masks.input_conv]),
            *(
                nn.ModuleList(convolutions[first : first + layers])
                for first in range(0, len(convolutions), layers)
            ),
            nn.ModuleList([masks.output_prelu, masks.output_conv]),
            self.network.decoder,
        ]

    @classmethod
    def create(cls, settings: Mapping[str, Any]) -> "ConvTasNetSeparator":
        """A new network of `blocks` stacks of `layers` convolutions, the rest in proportion.

        The published has 512 channels, filters of 16 samples and 3 stacks of 8. As in torchaudio's
        trained one, masks are rectified instead of squashed.

        Raises:
            ModelError: sizes do not go together.
        """
        return cls({name: settings[name] for name in ("kind", *_COUNTS)})

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "ConvTasNetSeparator":
        """The network that has these `sizes()`, with random weights."""
        return cls(sizes)

    def sizes(self) -> dict[str, Any]:
        """The settings it was created with; see `LayeredNetwork.sizes`."""
        return dict(self._sizes)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """The speakers (B, S, T) of mixtures (B, T); see `Separator.forward`."""
        self.check_length(mixtures.shape[1])
        sources: torch.Tensor = self.network(mixtures[:, None])
        return sources

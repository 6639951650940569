"""The HiFi-GAN generator of kNN-VC (arXiv 2010.05646, 2305.18975)."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from etaflow.products import frames_first
from etaflow.vocoder import layers
from etaflow.vocoder.config import GeneratorConfig


class Hifigan(nn.Module):
    """A linear layer, then SpeechBrain's HiFi-GAN generator.

    `lin_pre`, `hifigan.conv_pre`, `hifigan.ups`, `hifigan.resblocks`, `hifigan.conv_post` are the
    modules of kNN-VC's generator.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        """Draw the weights, under weight norm."""
        # Imported here: who only asks for a mel distance need not wait for SpeechBrain.
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator
        from speechbrain.nnet.CNN import Conv1d

        super().__init__()
        self.lin_pre = nn.Linear(config.feature_dim, config.hidden_dim)
        self.hifigan = HifiganGenerator(
            in_channels=config.hidden_dim,
            out_channels=1,
            resblock_type="1" if len(config.resblock_dilations[0]) == 3 else "2",
            resblock_dilation_sizes=config.resblock_dilations,
            resblock_kernel_sizes=config.resblock_kernels,
            upsample_kernel_sizes=config.upsample_kernels,
            upsample_initial_channel=config.upsample_channels,
            upsample_factors=config.upsample_factors,
        )
        self.hifigan.remove_weight_norm()
        for module in self._convolutions():
            if isinstance(module, Conv1d):
                # SpeechBrain pads by reflection, which kNN-VC does not and a one-frame input
                # does not survive; ours pad with zeros themselves.
                module.padding, module.conv = "valid", layers.Conv(module.conv)
            else:
                module.conv = layers.ConvTranspose(module.conv)
        self.add_weight_norm()

    def _convolutions(self) -> list[Any]:
        """SpeechBrain's wrappers; the layer is their `conv`."""
        return [module for module in self.hifigan.modules() if hasattr(module, "conv")]

    def add_weight_norm(self) -> None:
        """Put every convolution under weight norm."""
        for module in self._convolutions():
            weight_norm(module.conv)

    def remove_weight_norm(self) -> None:
        """Fold the magnitudes of weight norm into the weights."""
        self.hifigan.remove_weight_norm()
        for module in self._convolutions():
            # Weight norm leaves weights in PyTorch's order of memory.
            module.conv.weight = nn.Parameter(frames_first(module.conv.weight.detach()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, 1, hop_length T)."""
        waveform: torch.Tensor = self.hifigan(self.lin_pre(features).transpose(1, 2))
        return waveform

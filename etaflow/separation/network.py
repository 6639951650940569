"""Separators as networks: what trains them, saves them and runs them alike."""

import torch

from etaflow.layered import LayeredNetwork


class Separator(LayeredNetwork):
    """Mixtures in, the speakers out, in any order; a mixture gets the same alone and in company.

    Attributes:
        sample_rate: Hz, of the mixtures and of what comes out.
        num_speakers: S.
        shortest: samples that a mixture needs.
        longest: samples that a mixture may have; None for any number.
        step: samples; a mixture cut at a multiple of it goes through the same frames and chunks of
            frames as one that is not cut.

    `layers` are: encoder, bottleneck, one for each block, what follows the blocks, decoder.
    """

    sample_rate: int
    num_speakers: int
    shortest: int
    longest: int | None = None
    step: int
    layers_above_blocks = 2

    @property
    def num_blocks(self) -> int:
        """Of the network between its encoder and its decoder."""
        return len(self.layers) - 2 - self.layers_above_blocks

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """The speakers (B, S, T) of mixtures (B, T) of one length, at no particular level.

        Raises:
            ValueError: the mixtures are too short or too long.
        """
        raise NotImplementedError

    def check_length(self, samples: int) -> None:
        """Raise `ValueError` unless a mixture may have so many samples."""
        if samples < self.shortest:
            raise ValueError(f"a mixture of {samples} samples; the separator needs {self.shortest}")
        if self.longest is not None and samples > self.longest:
            raise ValueError(
                f"a mixture of {samples / self.sample_rate:.1f} s; the separator takes up to "
                f"{self.longest / self.sample_rate:.1f} s at once: separate it in chunks"
            )

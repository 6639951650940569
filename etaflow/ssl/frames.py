"""Which samples a frame of a self-supervised encoder sees, and where to cut a long waveform."""

from dataclasses import dataclass
from math import prod
from typing import Any

CHUNK_FRAMES, CONTEXT_FRAMES = 3000, 200  # 60 s and 4 s
FIELD = 400  # of the front ends of WavLM and HuBERT, samples


@dataclass(frozen=True)
class FrameGrid:
    """Frame i sees the samples hop i to hop i + field - 1.

    Attributes:
        hop_length: samples between frames.
        field: receptive field of the convolutions, samples.
    """

    hop_length: int
    field: int

    @classmethod
    def of(cls, config: Any) -> "FrameGrid":
        """The grid of a model with this configuration of transformers."""
        field = 1
        for kernel, stride in zip(
            reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
        ):
            field = (field - 1) * stride + kernel
        return cls(prod(config.conv_stride), field)

    def count(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return max(0, (num_samples - self.field) // self.hop_length + 1)

    def within(self, start: int, stop: int) -> slice:
        """The frames that see nothing but the samples [start, stop)."""
        first = -(-start // self.hop_length)
        return slice(first, max(first, (stop - self.field) // self.hop_length + 1))

    def spans(self, num_samples: int) -> list[tuple[int, int, int, int]]:
        """Chunks of a waveform: samples from, to, and the frames of the chunk to keep, from, to.

        A chunk keeps `CHUNK_FRAMES` frames and sees `CONTEXT_FRAMES` more on each side. A waveform
        of less than a chunk and its context is one chunk.
        """
        total, hop = self.count(num_samples), self.hop_length
        if total <= CHUNK_FRAMES + CONTEXT_FRAMES:
            return [(0, num_samples, 0, total)]
        spans = []
        for first in range(0, total, CHUNK_FRAMES):
            last = min(first + CHUNK_FRAMES, total)
            start, stop = max(0, first - CONTEXT_FRAMES), min(total, last + CONTEXT_FRAMES)
            end = num_samples if stop == total else (stop - 1) * hop + self.field
            spans.append((start * hop, end, first - start, last - start))
        return spans

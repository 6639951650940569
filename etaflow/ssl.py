"""Self-supervised encoders (WavLM, HuBERT), cut at one layer."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.models import ModelError, ModelInfo, read_model_info

CHUNK_FRAMES, CONTEXT_FRAMES = 3000, 200  # 60 s and 4 s


def _load_quietly(files: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and which weights were missing; the blocks cut off are no news to report."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, loading = AutoModel.from_pretrained(
            files, config=config, local_files_only=True, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    return model, loading


class SSLEncoder(nn.Module):
    """The first `layer` transformer blocks of a WavLM or HuBERT.

    Layer N is the output of block N before any final norm: `hidden_states[N]` of the full model.
    An utterance of n samples has floor((n - 400) / 320) + 1 frames; frame i sees the samples
    320 i to 320 i + 399.
    """

    def __init__(
        self, model: PreTrainedModel, layer: int, normalize: bool, info: ModelInfo
    ) -> None:
        super().__init__()
        self.model, self.layer, self.normalize, self.info = model, layer, normalize, info
        self.dim: int = model.config.hidden_size
        self.hop_length = int(np.prod(model.config.conv_stride))
        self.field = 1  # receptive field of the convolutions, samples
        for kernel, stride in zip(
            reversed(model.config.conv_kernel), reversed(model.config.conv_stride), strict=True
        ):
            self.field = (self.field - 1) * stride + kernel
        # A group norm in the front-end takes its statistics over the padding too.
        self._pads = model.config.feat_extract_norm == "layer"

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        layer: int = 6,
        normalize: bool = False,
        device: str | torch.device = "cpu",
    ) -> "SSLEncoder":
        """Load a fetched model folder and keep its first `layer` blocks.

        Args:
            source: a folder with `model.json` (see `etaflow.models`).
            layer: number of blocks to run, 1 to the model's depth.
            normalize: bring each waveform to zero mean and unit variance first. The published
                kNN-VC vocoders expect False, Eta-WavLM normalises.
            device: where to compute.

        Raises:
            ValueError: the model has fewer blocks.
            ModelError: a weight of the first `layer` blocks is missing.
        """
        info, files = read_model_info(source)
        config = AutoConfig.from_pretrained(files, local_files_only=True)
        if not 1 <= layer <= config.num_hidden_layers:
            raise ValueError(
                f"{info.name} has layers 1 to {config.num_hidden_layers}, asked for {layer}"
            )
        config.num_hidden_layers = layer
        config.layerdrop = 0.0
        model, loading = _load_quietly(files, config)
        missing = [key for key in loading["missing_keys"] if key != "masked_spec_embed"]
        if missing:
            raise ModelError(
                f"{info.name}: {len(missing)} weight(s) missing in {files}, the first is "
                f"{sorted(missing)[0]}"
            )
        if config.do_stable_layer_norm:
            # Here the norm comes after the last block; in the other layout before the first.
            model.encoder.layer_norm = nn.Identity()
        encoder = cls(model, layer, normalize, info)
        return encoder.eval().requires_grad_(False).to(device)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples` at 16 kHz."""
        return int(self.model._get_feat_extract_output_lengths(num_samples))

    def batches(self, lengths: Sequence[int], max_seconds: float) -> Iterable[list[int]]:
        """Indices of waveforms in batches of similar length, longest first.

        A batch holds at most `max_seconds` with its padding, or a single waveform. Models with a
        group norm get batches of one length.
        """
        max_samples = int(max_seconds * SAMPLE_RATE)
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
            longest = lengths[batch[0]] if batch else lengths[index]
            fits = longest * (len(batch) + 1) <= max_samples
            if batch and not (fits and (self._pads or lengths[index] == longest)):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _spans(self, num_samples: int) -> list[tuple[int, int, int, int]]:
        """Chunks of a waveform: samples from, to, and the frames of the chunk to keep, from, to.

        A chunk keeps `CHUNK_FRAMES` frames and sees `CONTEXT_FRAMES` more on each side. A waveform
        of less than a chunk and its context is one chunk.
        """
        total, hop = self.num_frames(num_samples), self.hop_length
        if total <= CHUNK_FRAMES + CONTEXT_FRAMES:
            return [(0, num_samples, 0, total)]
        spans = []
        for first in range(0, total, CHUNK_FRAMES):
            last = min(first + CHUNK_FRAMES, total)
            start, stop = max(0, first - CONTEXT_FRAMES), min(total, last + CONTEXT_FRAMES)
            # Frame i sees the samples hop i to hop i + field - 1.
            end = num_samples if stop == total else (stop - 1) * hop + self.field
            spans.append((start * hop, end, first - start, last - start))
        return spans

    def encode(
        self,
        waveforms: Sequence[Waveform],
        sample_rate: int = SAMPLE_RATE,
        max_batch_seconds: float = 60.0,
    ) -> list[torch.Tensor]:
        """Features (frames, D) float32 of each waveform (T,), the same alone or in company.

        A waveform of more than 64 s is encoded in chunks of 60 s with 4 s of context on each side,
        so that memory stays bounded however long it is: attention is quadratic in the length.

        Raises:
            ValueError: another rate than 16 kHz, or a waveform too short for one frame.
        """
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"expected {SAMPLE_RATE} Hz, got {sample_rate} Hz; resample first")
        for waveform in waveforms:
            if self.num_frames(len(waveform)) < 1:
                raise ValueError(
                    f"a waveform of {len(waveform)} samples is too short for one frame"
                )
        spans = [self._spans(len(waveform)) for waveform in waveforms]
        chunks = [
            waveform[start:stop]
            for waveform, of_waveform in zip(map(self._normalized, waveforms), spans, strict=True)
            for start, stop, _, _ in of_waveform
        ]
        encoded = iter(self._encode_chunks(chunks, max_batch_seconds))
        return [
            torch.cat([next(encoded)[first:last] for _, _, first, last in of_waveform])
            for of_waveform in spans
        ]

    def _normalized(self, waveform: Waveform) -> torch.Tensor:
        values = torch.from_numpy(waveform)
        if not self.normalize:
            return values
        # The statistics of Wav2Vec2FeatureExtractor, over the waveform's own length.
        return (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-7)

    @torch.inference_mode()
    def _encode_chunks(
        self, chunks: Sequence[torch.Tensor], max_batch_seconds: float
    ) -> list[torch.Tensor]:
        lengths = [len(chunk) for chunk in chunks]
        device = next(self.parameters()).device
        features: list[torch.Tensor] = [torch.empty(0)] * len(chunks)
        for batch in self.batches(lengths, max_batch_seconds):
            longest = lengths[batch[0]]
            values = torch.zeros(len(batch), longest)
            mask = torch.zeros(len(batch), longest, dtype=torch.long)
            for row, index in enumerate(batch):
                values[row, : lengths[index]] = chunks[index]
                mask[row, : lengths[index]] = 1
            with warnings.catch_warnings():
                # transformers mixes a boolean and a float mask, which torch only complains of.
                warnings.filterwarnings("ignore", message="Support for mismatched")
                hidden = self.model(
                    values.to(device), attention_mask=mask.to(device) if self._pads else None
                ).last_hidden_state
            for row, index in enumerate(batch):
                features[index] = hidden[row, : self.num_frames(lengths[index])].float().cpu()
        return features

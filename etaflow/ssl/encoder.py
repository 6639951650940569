"""Self-supervised encoders (WavLM, HuBERT), cut at a layer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.batches import similar_lengths
from etaflow.models import ModelError, ModelInfo, read_model_info
from etaflow.ssl.features import SSLFeatures
from etaflow.ssl.frames import FrameGrid
from etaflow.ssl.layers import Conv, FrontEnd, rearrange
from etaflow.ssl.loading import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# On a CPU more at a time is slower: the system maps, and clears, larger memory anew at each layer.
CPU_BATCH_SECONDS = 16.0


class SSLEncoder(nn.Module):
    """The first transformer blocks of a WavLM or HuBERT, up to the deepest layer asked for.

    Layer N is the output of block N before any final norm: `hidden_states[N]` of the full model.
    An utterance of n samples has floor((n - 400) / 320) + 1 frames; frame i sees the samples
    320 i to 320 i + 399.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        layers: Sequence[int],
        normalize: bool,
        precision: str,
        info: ModelInfo,
    ) -> None:
        super().__init__()
        config = model.config
        self.layers, self.layer = tuple(layers), max(layers)
        self.normalize, self.precision, self.info = normalize, precision, info
        self.dim: int = config.hidden_size
        self.grid = FrameGrid.of(config)
        self.hop_length, self.field = self.grid.hop_length, self.grid.field
        self.front_end = FrontEnd(model.feature_extractor, self.hop_length, self.field)
        self.projection, self.encoder = model.feature_projection, model.encoder
        positions = self.encoder.pos_conv_embed
        parametrize.remove_parametrizations(positions.conv, "weight")  # computed once, not always
        positions.conv = Conv(positions.conv)
        rearrange(self)
        self._outputs: dict[int, torch.Tensor] = {}
        self._busy = threading.Lock()
        for layer in self.layers:
            self.encoder.layers[layer - 1].register_forward_hook(self._keep(layer))

    def _keep(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        layer: int | Sequence[int] = 6,
        normalize: bool = False,
        device: str | torch.device = "cpu",
        precision: str = "float32",
    ) -> "SSLEncoder":
        """Load a fetched model folder and keep its first blocks.

        Args:
            source: a folder with `model.json` (see `etaflow.models`).
            layer: the layer that `encode` gives, or several for `encode_layers`; from 1 to the
                model's depth.
            normalize: bring each waveform to zero mean and unit variance first. The published
                kNN-VC vocoders expect False, Eta-WavLM normalises.
            device: where to compute.
            precision: `float32`, or `float16`: products in half precision where PyTorch's autocast
                finds that safe, for GPUs.

        Raises:
            ValueError: the model has fewer blocks, or the precision is another.
            ModelError: a weight of these blocks is missing.
        """
        from transformers import AutoConfig  # slow to load

        if precision not in ("float32", "float16"):
            raise ValueError(f"precision {precision!r}: allowed are float32 and float16")
        info, files = read_model_info(source)
        config = AutoConfig.from_pretrained(files, local_files_only=True, trust_remote_code=False)
        layers = sorted(set(layer)) if isinstance(layer, Sequence) else [layer]
        depth = config.num_hidden_layers
        if not layers or not 1 <= layers[0] <= layers[-1] <= depth:
            asked = ", ".join(map(str, layers))
            raise ValueError(f"{info.name} has layers 1 to {depth}, asked for {asked or 'none'}")
        config.num_hidden_layers = layers[-1]
        config.layerdrop = 0.0
        try:
            model = load_model(files, config)
        except ModelError as error:
            raise ModelError(f"{info.name}: {error}") from error
        encoder = cls(model, layers, normalize, precision, info)
        return encoder.eval().requires_grad_(False).to(device)

    @property
    def features(self) -> SSLFeatures:
        """What `encode` gives."""
        return SSLFeatures(self.info, self.layer, self.normalize, self.grid)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples` at 16 kHz."""
        return self.grid.count(num_samples)

    def encode(
        self,
        waveforms: Sequence[Waveform],
        sample_rate: int = SAMPLE_RATE,
        max_batch_seconds: float = 60.0,
    ) -> list[torch.Tensor]:
        """Features (frames, D) float32 of each waveform (T,), the same alone or in company.

        They are those of the deepest layer; for the rest see `encode_layers`.
        """
        encoded = self.encode_layers(waveforms, sample_rate, max_batch_seconds)
        return [features[self.layer] for features in encoded]

    def encode_layers(
        self,
        waveforms: Sequence[Waveform],
        sample_rate: int = SAMPLE_RATE,
        max_batch_seconds: float = 60.0,
    ) -> list[dict[int, torch.Tensor]]:
        """Features (frames, D) float32 of each layer of each waveform (T,), in one pass.

        A waveform of more than 64 s is encoded in chunks of 60 s with 4 s of context on each side,
        so that memory stays bounded however long it is: attention is quadratic in the length.

        Raises:
            ValueError: another rate than 16 kHz, a waveform that is not a vector of floating-point
                numbers, or one too short for a frame.
        """
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"expected {SAMPLE_RATE} Hz, got {sample_rate} Hz; resample first")
        for waveform in waveforms:
            self._check(waveform)
        chunks = [
            (number, *span)
            for number, waveform in enumerate(waveforms)
            for span in self.grid.spans(len(waveform))
        ]
        signals = [torch.tensor(np.ascontiguousarray(each, np.float32)) for each in waveforms]
        scales = [self._mean_and_scale(signal) for signal in signals]
        statistics = [
            self._statistics(signal, mean, scale)
            for signal, (mean, scale) in zip(signals, scales, strict=True)
        ]
        features = [
            {layer: torch.empty(self.num_frames(len(waveform)), self.dim) for layer in self.layers}
            for waveform in waveforms
        ]
        if next(self.parameters()).device.type == "cpu":
            max_batch_seconds = min(max_batch_seconds, CPU_BATCH_SECONDS)
        lengths = [stop - start for _, start, stop, _, _ in chunks]
        for batch in similar_lengths(lengths, int(max_batch_seconds * SAMPLE_RATE)):
            inputs = []
            for number, start, stop, _, _ in (chunks[index] for index in batch):
                mean, scale = scales[number]
                inputs.append((signals[number][start:stop] - mean) * scale)
            norms = [statistics[chunks[index][0]] for index in batch]
            for layer, hidden in self._encode_batch(inputs, norms).items():
                for row, index in enumerate(batch):
                    number, start, _, first, last = chunks[index]
                    to = start // self.hop_length + first
                    features[number][layer][to : to + last - first] = hidden[row, first:last]
        return features

    def stream(self, waveform: Waveform) -> Iterator[torch.Tensor]:
        """The features (frames, D) of `encode`, of a 16 kHz (T,), a chunk after another.

        Only a chunk of at most 64 s is in memory at a time, so the waveform may be a map of a file.

        Raises:
            ValueError: as `encode`.
        """
        self._check(waveform)
        signal = torch.from_numpy(waveform)
        mean, scale = self._mean_and_scale(signal)
        norm = self._statistics(signal, mean, scale)
        for start, stop, first, last in self.grid.spans(len(signal)):
            batch = [(signal[start:stop] - mean) * scale]
            yield self._encode_batch(batch, [norm])[self.layer][0, first:last]

    def _check(self, waveform: Waveform) -> None:
        if waveform.ndim != 1 or not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(
                f"a waveform of shape {waveform.shape}, {waveform.dtype}: expected (T,) of "
                "floating-point numbers in [-1, 1]"
            )
        if self.num_frames(len(waveform)) < 1:
            raise ValueError(f"a waveform of {len(waveform)} samples is too short for one frame")

    def _mean_and_scale(self, waveform: torch.Tensor) -> tuple[float, float]:
        """What normalisation takes off a waveform, and then multiplies it with."""
        if not self.normalize:
            return 0.0, 1.0
        # The statistics of Wav2Vec2FeatureExtractor, over the waveform's own length.
        variance, mean = torch.var_mean(waveform, correction=0)
        return float(mean), float(1 / torch.sqrt(variance + 1e-7))

    @torch.inference_mode()
    def _statistics(
        self, waveform: torch.Tensor, mean: float, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What a group norm takes from all of a waveform; None for models without."""
        if not self.front_end.grouped:
            return None
        device = next(self.parameters()).device
        return self.front_end.statistics((waveform.to(device) - mean) * scale)

    @torch.inference_mode()
    def _encode_batch(
        self,
        waveforms: Sequence[torch.Tensor],
        statistics: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
    ) -> dict[int, torch.Tensor]:
        """Each layer's output (B, T, D) float32 on the CPU, with padding."""
        device = next(self.parameters()).device
        half = self.precision == "float16"
        with (
            self._busy,  # the hooks leave what they find in one place
            torch.autocast(device.type, torch.float16, enabled=half),
            # Convolutions in TF32, PyTorch's default, would be off by 1e-3.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            found = [
                self.front_end(waveform.to(device), norm)
                for waveform, norm in zip(waveforms, statistics, strict=True)
            ]
            counts = torch.tensor([len(frames) for frames in found], device=device)
            hidden = self.projection(pad_sequence(found, batch_first=True))
            if isinstance(hidden, tuple):  # WavLM's gives what it was made from, too
                hidden = hidden[0]
            frames = torch.arange(hidden.shape[1], device=device)
            mask = None if (counts == counts[0]).all() else frames < counts[:, None]
            self.encoder(hidden, attention_mask=mask)
            outputs, self._outputs = self._outputs, {}
        return {layer: output.float().cpu() for layer, output in outputs.items()}

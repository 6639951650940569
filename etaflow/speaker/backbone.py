"""WavLM and HuBERT under a speaker encoder: frames of waveforms, with gradients.

`etaflow.ssl` computes the same numbers faster, but its layers cannot be trained.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from etaflow.models import ModelError, read_model_info
from etaflow.ssl.frames import FrameGrid
from etaflow.ssl.layers import channel_moments
from etaflow.ssl.loading import load_model

# Of what transformers hands on to PyTorch where utterances are padded.
warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)

VARIANCE_FLOOR = 1e-7  # of transformers' Wav2Vec2FeatureExtractor

Frames = tuple[torch.Tensor, torch.Tensor]
Combine = Callable[[list[torch.Tensor]], torch.Tensor]


def _last(states: list[torch.Tensor]) -> torch.Tensor:
    return states[-1]


def quiet_config(config: Any) -> Any:
    """The configuration without what hides or drops parts of an utterance in training."""
    config.layerdrop = 0.0
    config.mask_time_prob = config.mask_feature_prob = 0.0
    return config


class Backbone(nn.Module):
    """A model of transformers that gives a waveform the same frames alone and in company.

    Hidden state 0 is what the first block gets, hidden state N the output of block N, before any
    final norm.

    Attributes:
        dim: D, the size of a frame.
        depth: N of the last block.
        grid: which samples a frame sees.
        layers: the convolutions; what is between them and the blocks; each block.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        normalize: bool,
        variance_floor: float = VARIANCE_FLOOR,
        final_norm: bool = False,
    ) -> None:
        """Take over a model.

        Args:
            model: WavLM or HuBERT; what of it is not in use is removed.
            normalize: bring each waveform to zero mean and unit variance first.
            variance_floor: added to the variance by which a waveform is divided.
            final_norm: pass the last hidden state through the model's final norm, if it has one.
        """
        super().__init__()
        config = quiet_config(model.config)
        if hasattr(model, "masked_spec_embed"):
            del model.masked_spec_embed
        self.normalize, self.variance_floor = normalize, variance_floor
        self.model, self.config = model, config
        self.dim: int = config.hidden_size
        self.depth: int = config.num_hidden_layers
        self.grid = FrameGrid.of(config)
        encoder = model.encoder
        # In the base models this norm comes before the blocks.
        self.norm_first = not config.do_stable_layer_norm
        self.final_norm = final_norm and config.do_stable_layer_norm
        if not (self.norm_first or self.final_norm):
            encoder.layer_norm = nn.Identity()
        between = [model.feature_projection, encoder.pos_conv_embed, encoder.dropout]
        blocks: list[nn.Module] = list(encoder.layers)
        if self.norm_first:
            between.append(encoder.layer_norm)
        elif self.final_norm:
            blocks[-1] = nn.ModuleList([blocks[-1], encoder.layer_norm])
        self.layers: list[nn.Module] = [model.feature_extractor, nn.ModuleList(between), *blocks]

    @classmethod
    def from_model(
        cls, folder: Path, normalize: bool, layer: int | None = None, final_norm: bool = False
    ) -> "Backbone":
        """Load a fetched model folder, up to a layer.

        Raises:
            ModelError: the folder holds no WavLM or HuBERT, the model has fewer layers, or a weight
                is missing.
        """
        info, files = read_model_info(folder)
        try:
            config = AutoConfig.from_pretrained(
                files, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"{info.name}: no configuration of a model in {files}") from error
        if config.model_type not in ("wavlm", "hubert"):
            raise ModelError(f"{info.name}: {config.model_type!r} is neither wavlm nor hubert")
        depth = config.num_hidden_layers
        if layer is not None and not 1 <= layer <= depth:
            raise ModelError(f"{info.name} has layers 1 to {depth}, asked for {layer}")
        config.num_hidden_layers = layer or depth
        try:
            model = load_model(files, quiet_config(config))
        except ModelError as error:
            raise ModelError(f"{info.name}: {error}") from error
        return cls(model, normalize, final_norm=final_norm)

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "Backbone":
        """The backbone that has these `sizes()`, with random weights."""
        config = AutoConfig.for_model(**sizes["config"])
        return cls(
            AutoModel.from_config(quiet_config(config)),
            sizes["normalize"],
            sizes["variance_floor"],
            sizes["final_norm"],
        )

    def sizes(self) -> dict[str, Any]:
        """What it is made of, as JSON."""
        config = self.config.to_diff_dict()
        for key in ("transformers_version", "architectures", "dtype"):
            config.pop(key, None)
        return {
            "config": config,
            "normalize": self.normalize,
            "variance_floor": self.variance_floor,
            "final_norm": self.final_norm,
        }

    def forward(self, waveforms: Sequence[torch.Tensor], combine: Combine = _last) -> Frames:
        """Frames (B, T, D), zero where an utterance is over, and how many each has (B,).

        A waveform of more than 64 s is computed in chunks of 60 s with 4 s of context on each side,
        so that memory stays bounded: attention is quadratic in the length.

        Args:
            waveforms: (B, T) or a list of (T,), 16 kHz, of at least `grid.field` samples.
            combine: makes one (B, T, D) of all hidden states; by default takes the last.
        """
        normal = [self._normalized(waveform) for waveform in waveforms]
        if all(len(self.grid.spans(len(waveform))) == 1 for waveform in normal):
            return self._encode(*self._front(normal), combine)
        found = [self._in_chunks(waveform, combine) for waveform in normal]
        counts = torch.tensor([len(frames) for frames in found], device=found[0].device)
        return pad_sequence(found, batch_first=True), counts

    def _normalized(self, waveform: torch.Tensor) -> torch.Tensor:
        if not self.normalize:
            return waveform
        variance, mean = torch.var_mean(waveform, correction=0)
        return (waveform - mean) / torch.sqrt(variance + self.variance_floor)

    def _convolve(self, waveforms: torch.Tensor) -> torch.Tensor:
        """The convolutions: (B, samples) to (B, frames, C)."""
        hidden = waveforms[:, None]
        for layer in self.model.feature_extractor.conv_layers:
            hidden = layer(hidden)
        return hidden.transpose(1, 2)

    def _front(self, waveforms: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """Output of the convolutions (B, T, C), padded with zeros, and the frames of each."""
        if len({len(waveform) for waveform in waveforms}) == 1:
            found = self._convolve(torch.stack([*waveforms]))
            return found, [found.shape[1]] * len(found)
        # One at a time: a group norm would take padding into its statistics.
        each = [self._convolve(waveform[None])[0] for waveform in waveforms]
        return pad_sequence(each, batch_first=True), [len(frames) for frames in each]

    def _in_chunks(self, waveform: torch.Tensor, combine: Combine) -> torch.Tensor:
        """Frames (T, D) of a long waveform (samples,)."""
        first, *rest = self.model.feature_extractor.conv_layers
        grouped = isinstance(getattr(first, "layer_norm", None), nn.GroupNorm)
        if grouped:  # that norm sees the whole of a waveform
            mean, variance = channel_moments(
                lambda part: first.conv(part[None, None])[0].t(),
                waveform,
                first.conv.kernel_size[0],
                first.conv.stride[0],
            )
            norm = first.layer_norm
            middle = mean.float()[:, None]
            scale = (norm.weight / torch.sqrt(variance + norm.eps).float())[:, None]
        parts = []
        for start, stop, begin, end in self.grid.spans(len(waveform)):
            chunk = waveform[start:stop][None]
            if grouped:
                hidden = (first.conv(chunk[:, None]) - middle) * scale + norm.bias[:, None]
                hidden = first.activation(hidden)
                for layer in rest:
                    hidden = layer(hidden)
                found = hidden.transpose(1, 2)
            else:
                found = self._convolve(chunk)
            parts.append(self._encode(found, [found.shape[1]], combine)[0][0, begin:end])
        return torch.cat(parts)

    def _encode(self, found: torch.Tensor, frames: list[int], combine: Combine) -> Frames:
        """Everything above the convolutions, of (B, T, C)."""
        encoder, config = self.model.encoder, self.config
        hidden = self.model.feature_projection(found)
        if isinstance(hidden, tuple):  # WavLM's gives what it was made from, too
            hidden = hidden[0]
        counts = torch.tensor(frames, device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device) < counts[:, None]
        padded = len(set(frames)) > 1
        if padded:
            hidden = hidden.masked_fill(~mask[..., None], 0.0)
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if self.norm_first:
            hidden = encoder.layer_norm(hidden)
        hidden = encoder.dropout(hidden)
        states = [hidden]
        attended = mask if padded else None
        if config.model_type == "wavlm":
            bias = None
            for block in encoder.layers:
                hidden, bias = block(hidden, attention_mask=attended, position_bias=bias)
                states.append(hidden)
        else:
            attended = create_bidirectional_mask(
                config=config, inputs_embeds=hidden, attention_mask=attended
            )
            for block in encoder.layers:
                hidden = block(hidden, attention_mask=attended)
                states.append(hidden)
        if self.final_norm:
            states[-1] = encoder.layer_norm(states[-1])
        combined = combine(states)
        return (combined.masked_fill(~mask[..., None], 0.0) if padded else combined), counts


def mean_frames(frames: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mean (B, D) over the frames of each utterance, of (B, T, D) with zeros for padding."""
    return frames.sum(1) / counts[:, None]

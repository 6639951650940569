"""A WavLM with heads that tell clusters, pitch and spectrum, and the folder that is left of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from etaflow.atomic import write_json
from etaflow.audio import SAMPLE_RATE
from etaflow.models import ModelInfo, read_model_info
from etaflow.pitch import BINS
from etaflow.ssl.frames import FIELD, FrameGrid
from etaflow.ssl.loading import load_model
from etaflow.ssl.pretraining.crops import BANDS, HOP

# The layout of WavLM-Large: what an utterance gives does not depend on its company in a batch.
LAYOUT = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# A small network has nothing to spare.
DROPOUTS = ("hidden", "activation", "attention", "feat_proj", "final")
SLOPE_FROM = 500.0  # Hz: above, speech has some 6 dB an octave less


class PretrainingNetwork(nn.Module):
    """Waveforms to scores of clusters and of pitch, and spectra, through masked frames."""

    def __init__(self, wavlm: WavLMModel, clusters: int) -> None:
        """Draw the heads from PyTorch's global generator.

        Raises:
            ValueError: the frames of the WavLM are not the field's 400 samples, 320 apart.
        """
        super().__init__()
        grid = FrameGrid.of(wavlm.config)
        if (grid.hop_length, grid.field) != (HOP, FIELD):
            raise ValueError(
                f"conv_kernel and conv_stride make frames of {grid.field} samples, "
                f"{grid.hop_length} apart; they have to be {FIELD} and {HOP}"
            )
        self.wavlm = wavlm
        self.head = nn.Linear(wavlm.config.hidden_size, clusters)
        self.pitch = nn.Linear(wavlm.config.hidden_size, BINS)
        self.spectrum = nn.Linear(wavlm.config.hidden_size, BANDS)

    def forward(
        self, waveforms: torch.Tensor, masked: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tell what waveforms (B, 320 T + 80) are of, with masked frames (B, T).

        Returns:
            Scores (B, T, K) of clusters, and (B, T, BINS) of the bins of `etaflow.pitch`; and the
            spectrum (B, T, BANDS), see `log_energies`.
        """
        hidden = self.wavlm(waveforms, mask_time_indices=masked).last_hidden_state
        return self.head(hidden), self.pitch(hidden), self.spectrum(hidden)

    def layers(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """The output (T, D) of each block for one waveform (1, S), nothing of it masked."""
        states = self.wavlm(waveform, output_hidden_states=True).hidden_states
        return [state[0] for state in states[1:]]


def start_as_fourier(convolution: nn.Conv1d) -> None:
    """Set a convolution (4 N, 1, kernel) over a waveform to a short-time Fourier transform.

    Bin n, of N from 0 to 8 kHz, has a cosine and a sine under a Hann window, and both with the
    other sign, as what follows lets only what is positive through: a sum of four tells the energy.
    Channels over a multiple of four are left.
    """
    kernel, bins = convolution.kernel_size[0], convolution.out_channels // 4
    if not bins:
        return
    frequencies = (np.arange(bins) + 0.5) * SAMPLE_RATE / 2 / bins
    window = np.hanning(kernel + 2)[1:-1]
    gains = np.hypot(1, frequencies / SLOPE_FROM) * np.sqrt(2 / (window**2).sum())
    phases = 2 * np.pi / SAMPLE_RATE * np.outer(frequencies, np.arange(kernel) - (kernel - 1) / 2)
    waves = np.stack([np.cos(phases), np.sin(phases), -np.cos(phases), -np.sin(phases)], axis=1)
    filters = torch.from_numpy(gains[:, None, None] * window * waves).flatten(0, 1)
    with torch.no_grad():
        convolution.weight[: 4 * bins, 0] = filters.to(convolution.weight)
        if convolution.bias is not None:
            convolution.bias[: 4 * bins] = 0


def new_wavlm(sizes: Mapping[str, Any]) -> WavLMModel:
    """A WavLM of these sizes (keywords of transformers' `WavLMConfig`), with drawn weights.

    Only the first convolution is not drawn, see `start_as_fourier`: what it takes a small network
    thousands of steps to find.
    """
    without = {f"{name}_dropout": 0.0 for name in DROPOUTS}
    wavlm = WavLMModel(WavLMConfig(**LAYOUT, **without, layerdrop=0.0, **sizes))
    start_as_fourier(wavlm.feature_extractor.conv_layers[0].conv)
    return wavlm


def pretrained_wavlm(folder: Path) -> WavLMModel:
    """The WavLM of a model folder, whole, to go on with.

    Raises:
        ModelError: there is no `model.json`, or weights are missing.
    """
    _, files = read_model_info(folder)
    config = WavLMConfig.from_pretrained(files, local_files_only=True)
    config.layerdrop = 0.0
    return load_model(files, config, WavLMModel)


def save_encoder(wavlm: WavLMModel, folder: Path, name: str, normalize: bool = True) -> ModelInfo:
    """Write a model folder of transformers, with `model.json`; its revision is of the weights.

    Args:
        wavlm: on any device.
        folder: exists.
        name: of the model.
        normalize: what the preprocessor says of the waveforms it was trained on.
    """
    wavlm.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True).save_pretrained(
        folder
    )
    with (folder / "model.safetensors").open("rb") as stream:
        revision = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    info = ModelInfo(name, "run", "wavlm", revision, "trained", ".")
    write_json(folder / "model.json", vars(info))
    return info

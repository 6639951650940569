"""Small separators, and folders in the format of SpeechBrain's published ones."""

import json
from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml

SETTINGS: dict[str, dict[str, Any]] = {
    "sepformer": {
        "kind": "sepformer",
        "sample_rate": 8_000,
        "speakers": 2,
        "channels": 32,
        "kernel": 16,
        "blocks": 2,
        "layers": 1,
        "chunk": 20,
        "reach": 8,
    },
    "conv-tasnet": {
        "kind": "conv-tasnet",
        "sample_rate": 16_000,
        "speakers": 3,
        "channels": 16,
        "kernel": 8,
        "blocks": 2,
        "layers": 3,
    },
}

# As in the folders of sepformer-wsj02mix, but smaller.
HYPERPARAMETERS = """
sample_rate: 8000
num_spks: 3

Encoder: !new:speechbrain.lobes.models.dual_path.Encoder
  kernel_size: 16
  out_channels: 32

SBtfintra: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
  num_layers: 2
  d_model: 32
  nhead: 8
  d_ffn: 24
  dropout: 0
  use_positional_encoding: true
  norm_before: true

SBtfinter: !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
  num_layers: 1
  d_model: 32
  nhead: 4
  d_ffn: 40
  dropout: 0
  use_positional_encoding: true
  norm_before: true

MaskNet: !new:speechbrain.lobes.models.dual_path.Dual_Path_Model
  num_spks: !ref <num_spks>
  in_channels: 32
  out_channels: 32
  num_layers: 2
  K: 14
  intra_model: !ref <SBtfintra>
  inter_model: !ref <SBtfinter>
  norm: ln
  linear_layer_after_inter_intra: false
  skip_around_intra: true

Decoder: !new:speechbrain.lobes.models.dual_path.Decoder
  in_channels: 32
  out_channels: 1
  kernel_size: 16
  stride: 8
  bias: false

modules:
  encoder: !ref <Encoder>
  decoder: !ref <Decoder>
  masknet: !ref <MaskNet>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    encoder: !ref <Encoder>
    masknet: !ref <MaskNet>
    decoder: !ref <Decoder>
"""


def published_folder(folder: Path, text: str = HYPERPARAMETERS) -> Path:
    """A model folder with random weights, which SpeechBrain wrote."""
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(0)
    modules = load_hyperpyyaml(text)["modules"]
    for name, module in modules.items():
        for parameter in module.parameters():  # norms start as the identity
            parameter.data += 0.1 * torch.randn_like(parameter)
        torch.save(module.state_dict(), folder / f"{name}.ckpt")
    info = {"name": "small", "source": "path", "architecture": "sepformer", "path": "."}
    (folder / "model.json").write_text(json.dumps({**info, "revision": "", "weights": "untrained"}))
    return folder

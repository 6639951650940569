"""SepFormer (Subakan et al., ICASSP 2021, arXiv:2010.13154), of SpeechBrain's modules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.lobes.models.dual_path import (
    Decoder,
    Dual_Path_Model,
    Encoder,
    SBTransformerBlock,
)
from torch import nn

from etaflow.models import ModelError, ModelInfo
from etaflow.separation.hyperparameters import Hyperparameters
from etaflow.separation.network import Separator
from etaflow.weights import fill, read_checkpoint

POSITIONS = 2_500  # that SpeechBrain encodes
HEAD = 32  # channels of a head of the published networks
PARTS = ("encoder", "masknet", "decoder")
TRANSFORMERS = ("intra_model", "inter_model")  # within chunks, across chunks

_PACKAGE = "speechbrain.lobes.models.dual_path"
# The arguments of SpeechBrain's classes with their defaults; `...` has none, or none that holds.
_ENCODER = {"kernel_size": 2, "out_channels": 64, "in_channels": 1}
_DECODER = {
    "in_channels": ...,
    "out_channels": ...,
    "kernel_size": ...,
    "stride": 1,
    "bias": True,
}
_TRANSFORMER = {
    "num_layers": ...,
    "d_model": ...,
    "nhead": ...,
    "d_ffn": 2048,
    "dropout": 0.1,
    "activation": "relu",
    "use_positional_encoding": False,
    "norm_before": False,
    "attention_type": "regularMHA",
}
_MASKNET = {
    "in_channels": ...,
    "out_channels": ...,
    "intra_model": ...,
    "inter_model": ...,
    "num_layers": 1,
    "norm": "ln",
    "K": 200,
    "num_spks": 2,
    "skip_around_intra": True,
    "linear_layer_after_inter_intra": True,
    "use_global_pos_enc": False,
    "max_length": 20_000,
}


class _AcrossChunks(SBTransformerBlock):
    """Attention across chunks, of each to those that are at most `reach` away."""

    def __init__(self, reach: int | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reach = reach

    def forward(self, chunks: torch.Tensor) -> torch.Tensor:
        """As SpeechBrain's block, of chunks (B, S, N)."""
        if self.reach is None:
            whole: torch.Tensor = super().forward(chunks)
            return whole
        places = torch.arange(chunks.shape[1], device=chunks.device)
        far = (places[:, None] - places).abs() > self.reach
        heard: torch.Tensor = self.mdl(chunks, src_mask=far)[0]
        return heard


def _check(sizes: Mapping[str, Any]) -> None:
    """Raise `ModelError` for sizes that SpeechBrain's modules take, and fail on later."""
    encoder, masknet, decoder = (sizes[part] for part in PARTS)
    inner, reach = [masknet[name] for name in TRANSFORMERS], sizes.get("reach")
    kernel, channels = encoder["kernel_size"], encoder["out_channels"]
    wrong = {
        f"a rate of {sizes['sample_rate']} Hz": sizes["sample_rate"] < 1,
        f"{masknet['num_spks']} speakers": masknet["num_spks"] < 1,
        f"filters of {kernel} samples": kernel < 2,
        "a decoder whose filters are not the encoder's, half overlapping": (
            (decoder["kernel_size"], decoder["stride"]) != (kernel, kernel // 2)
        ),
        "more than one channel of audio": {encoder["in_channels"], decoder["out_channels"]} != {1},
        "parts of different widths": (
            {masknet["in_channels"], decoder["in_channels"]} != {channels}
            or {each["d_model"] for each in inner} != {masknet["out_channels"]}
        ),
        f"a reach of {reach} chunks": reach is not None and reach < 1,
        "a reach and numbered chunks": (reach is not None and inner[1]["use_positional_encoding"]),
        f"chunks of {masknet['K']} frames; the number has to be even": (
            masknet["K"] < 2 or masknet["K"] % 2 == 1
        ),
        f"chunks of {masknet['K']} frames; up to {POSITIONS} have a position": (
            inner[0]["use_positional_encoding"] and masknet["K"] > POSITIONS
        ),
        f"a norm {masknet['norm']!r}": masknet["norm"] not in ("ln", "gln", "cln"),
        "another attention than regularMHA": any(
            each["attention_type"] != "regularMHA" for each in inner
        ),
        "use_global_pos_enc": masknet["use_global_pos_enc"],
    }
    if problems := [problem for problem, found in wrong.items() if found]:
        raise ModelError(f"sepformer: cannot have {'; '.join(problems)}")


class SepFormer(Separator):
    """A filter bank, masks of its output by transformers within and across chunks, and back.

    As in SpeechBrain, samples at the end that fill no half of a filter come out as zeros.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        _check(sizes)
        self._sizes = dict(sizes)
        masknet = dict(sizes["masknet"])
        within, across = (masknet.pop(name) for name in TRANSFORMERS)
        inner = [SBTransformerBlock(**within), _AcrossChunks(sizes.get("reach"), **across)]
        self.encoder = Encoder(**sizes["encoder"])
        self.masknet = Dual_Path_Model(**masknet, intra_model=inner[0], inter_model=inner[1])
        self.decoder = Decoder(**sizes["decoder"])
        self.sample_rate, self.num_speakers = sizes["sample_rate"], masknet["num_spks"]
        kernel, half = sizes["encoder"]["kernel_size"], masknet["K"] // 2
        self.shortest = kernel
        self.step = half * (kernel // 2)
        if inner[1].use_positional_encoding:
            # Chunks overlap by half, and begin half a chunk before the first frame.
            self.longest = (POSITIONS * half - half - 1) * (kernel // 2) + kernel - 1
        net = self.masknet
        ends = [net.prelu, net.conv2d, net.output, net.output_gate, net.end_conv1x1]
        self.layers = [
            self.encoder,
            nn.ModuleList([net.norm, net.conv1d]),
            *net.dual_mdl,
            nn.ModuleList(ends),
            self.decoder,
        ]

    @classmethod
    def create(cls, settings: Mapping[str, Any]) -> "SepFormer":
        """A new network of `blocks` dual-path blocks, the rest in the published proportions.

        The published has 256 channels, filters of 16 samples, 2 blocks of 8 layers and chunks of
        250 frames. It numbers its chunks, and each attends to all others. A new one has no numbers,
        and a chunk attends to `reach` of them on each side: so it hears what it heard in training
        crops of that length, wherever in a recording, and in any part that is cut out of it.

        Raises:
            ModelError: sizes do not go together.
        """
        channels, kernel = settings["channels"], settings["kernel"]
        if channels % HEAD:
            raise ModelError(f"sepformer: {channels} channels; it has to be a multiple of {HEAD}")
        transformer = {
            **_TRANSFORMER,
            "num_layers": settings["layers"],
            "d_model": channels,
            "nhead": channels // HEAD,
            "d_ffn": 4 * channels,
            "dropout": 0.0,
            "use_positional_encoding": True,
            "norm_before": True,
        }
        masknet = {
            **_MASKNET,
            "in_channels": channels,
            "out_channels": channels,
            "intra_model": transformer,
            "inter_model": {**transformer, "use_positional_encoding": False},
            "num_layers": settings["blocks"],
            "K": settings["chunk"],
            "num_spks": settings["speakers"],
            "linear_layer_after_inter_intra": False,
        }
        ends = {"kernel_size": kernel, "in_channels": channels, "out_channels": 1}
        network = cls(
            {
                "kind": "sepformer",
                "sample_rate": settings["sample_rate"],
                "reach": settings["reach"],
                "encoder": {"kernel_size": kernel, "out_channels": channels, "in_channels": 1},
                "masknet": masknet,
                "decoder": {**ends, "stride": kernel // 2, "bias": False},
            }
        )
        # SpeechBrain makes the blocks as copies of one, weights included.
        for module in network.masknet.dual_mdl.modules():
            for name in ("reset_parameters", "_reset_parameters"):
                if hasattr(module, name):
                    getattr(module, name)()
        return network

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "SepFormer":
        """The network that has these `sizes()`, with random weights."""
        return cls(sizes)

    @classmethod
    def from_published(cls, info: ModelInfo, files: Path) -> "SepFormer":
        """Read SpeechBrain's published folder; its YAML is taken as data, see `Hyperparameters`.

        Raises:
            ModelError: a file is missing or damaged, describes another network, or the weights are
                not those of the network that it describes.
        """
        path = files / "hyperparams.yaml"
        sizes = _published_sizes(Hyperparameters(path))
        try:
            network = cls(sizes)
        except (ValueError, ArithmeticError, AssertionError, RuntimeError, TypeError) as error:
            raise ModelError(f"{path}: no such SepFormer can be made ({error})") from error
        for part in PARTS:
            checkpoint = files / f"{part}.ckpt"
            fill(getattr(network, part), read_checkpoint(checkpoint), checkpoint)
        return network

    def sizes(self) -> dict[str, Any]:
        """The arguments of SpeechBrain's modules; see `LayeredNetwork.sizes`."""
        return dict(self._sizes)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """The speakers (B, S, T) of mixtures (B, T); see `Separator.forward`."""
        samples = mixtures.shape[1]
        self.check_length(samples)
        spectra = self.encoder(mixtures)  # (B, N, L)
        masked = self.masknet(spectra).transpose(0, 1) * spectra[:, None]  # (B, S, N, L)
        sources = self.decoder(masked.flatten(0, 1)).view(*masked.shape[:2], -1)
        return nn.functional.pad(sources, (0, samples - sources.shape[2]))


def _published_sizes(entries: Hyperparameters) -> dict[str, Any]:
    modules = entries.get("modules")
    if not isinstance(modules, dict) or not modules.keys() >= set(PARTS):
        raise ModelError(f"{entries.path}: `modules` does not name {', '.join(PARTS)}")
    encoder = entries.arguments(modules["encoder"], "encoder", f"{_PACKAGE}.Encoder", _ENCODER)
    decoder = entries.arguments(modules["decoder"], "decoder", f"{_PACKAGE}.Decoder", _DECODER)
    masknet = entries.arguments(
        modules["masknet"], "masknet", f"{_PACKAGE}.Dual_Path_Model", _MASKNET
    )
    for name in TRANSFORMERS:
        masknet[name] = entries.arguments(
            masknet[name], name, f"{_PACKAGE}.SBTransformerBlock", _TRANSFORMER
        )
    sample_rate, speakers = entries.get("sample_rate"), entries.get("num_spks")
    if not isinstance(sample_rate, int):
        raise ModelError(f"{entries.path}: sample_rate is {sample_rate!r}, no number of Hz")
    if speakers != masknet["num_spks"]:
        raise ModelError(
            f"{entries.path}: num_spks is {speakers!r}, that of masknet {masknet['num_spks']!r}"
        )
    return {
        "kind": "sepformer",
        "sample_rate": sample_rate,
        "encoder": encoder,
        "masknet": masknet,
        "decoder": decoder,
    }

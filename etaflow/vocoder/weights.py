"""Weights of a generator as files have them: weight norm, and the checkpoints of kNN-VC.

kNN-VC saves `{"generator": state_dict}` of its `hifigan/models.py` (https://github.com/bshall/knn-vc)
with the names of HiFi-GAN: `lin_pre`, `conv_pre`, `ups.N`, `resblocks.N.convs1.M`,
`resblocks.N.convs2.M`, `conv_post`.
"""

import re
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch

from etaflow.vocoder.config import FRAMES_A_SECOND, GeneratorConfig, VocoderError

# Magnitude and direction, as PyTorch's weight norm of old and of today names them.
_NORMED = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def fold_weight_norm(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same weights without weight norm (arXiv 1602.07868, equation 2).

    A magnitude g (N, 1, …) and a direction v (N, …) become the weight g v / |v|, with the norm over
    all but the first axis. A pair that is not whole, or does not fit, stays as it is.
    """
    folded = dict(weights)
    for magnitude, direction in _NORMED:
        for name in [name for name in weights if name.endswith(f".{magnitude}")]:
            stem = name.removesuffix(magnitude)
            g, v = weights[name], weights.get(stem + direction)
            if not (isinstance(g, torch.Tensor) and isinstance(v, torch.Tensor)):
                continue
            if not (g.is_floating_point() and v.is_floating_point()):
                continue
            if v.dim() > 1 and g.shape == (len(v), *[1] * (v.dim() - 1)):
                norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
                folded[f"{stem}weight"] = v * (g / norm)
                del folded[name], folded[stem + direction]
    return folded


def misfits(found: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> list[str]:
    """What is unknown, missing or of another shape among the weights found, in words."""
    unknown = sorted(found.keys() - shapes.keys())
    missing = sorted(shapes.keys() - found.keys())
    wrong = [f"unknown {', '.join(unknown)}"] if unknown else []
    wrong += [f"missing {', '.join(missing)}"] if missing else []
    for name in sorted(found.keys() & shapes.keys()):
        if not isinstance(found[name], torch.Tensor):
            wrong.append(f"{name} is no tensor")
        elif found[name].shape != shapes[name]:
            wrong.append(f"{name} is {tuple(found[name].shape)}, not {tuple(shapes[name])}")
        elif not (found[name].is_floating_point() and found[name].isfinite().all()):
            wrong.append(f"{name} holds other than finite floating-point numbers")
    return wrong


def upstream_name(name: str) -> str:
    """The name that a weight of ours has in kNN-VC's checkpoints."""
    return name.removeprefix("hifigan.").replace(".conv.", ".")


def read_checkpoint(path: str | Path) -> tuple[GeneratorConfig, dict[str, Any]]:
    """Read a checkpoint of kNN-VC's generator: its size, and its weights without weight norm.

    Widths and kernels are those of the weights. Each factor is half its kernel, as in every
    published HiFi-GAN; dilations leave no trace in weights and are kNN-VC's.

    Raises:
        VocoderError: the file is unreadable or no such checkpoint, or no generator has its sizes.
    """
    try:
        if zipfile.is_zipfile(path):
            # PyTorch writes checksums and does not look at them.
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"{bad} fails its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Whatever a damaged file makes of the reader: zip, unpickling and tensor errors.
    except Exception as error:
        raise VocoderError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("generator"), dict):
        raise VocoderError(f"{path}: a checkpoint of kNN-VC's generator has a key generator")
    if not all(isinstance(name, str) for name in content["generator"]):
        raise VocoderError(f"{path}: weights that have no names")
    weights = fold_weight_norm(content["generator"])
    try:
        return _size(weights), weights
    except VocoderError as error:
        raise VocoderError(f"{path}: {error}") from error


def _size(weights: Mapping[str, Any]) -> GeneratorConfig:
    """The size of a generator with these weights; kNN-VC's where they do not tell."""
    usual = GeneratorConfig(feature_dim=1024)

    def length(name: str, axis: int, otherwise: int) -> int:
        shape = getattr(weights.get(f"{name}.weight"), "shape", ())
        return shape[axis] if axis < len(shape) else otherwise

    def count(group: str) -> int:
        numbers = (re.match(rf"{group}\.(\d{{1,2}})\.", str(name)) for name in weights)
        return max((int(number[1]) + 1 for number in numbers if number), default=0)

    stages = count("ups") or len(usual.upsample_factors)
    blocks = count("resblocks") // stages or len(usual.resblock_kernels)
    usual_kernels = dict(enumerate(usual.upsample_kernels))
    kernels = [length(f"ups.{i}", 2, usual_kernels.get(i, 4)) for i in range(stages)]
    factors = tuple(kernel // 2 for kernel in kernels)
    return GeneratorConfig(
        feature_dim=length("lin_pre", 1, usual.feature_dim),
        hidden_dim=length("lin_pre", 0, usual.hidden_dim),
        upsample_channels=length("conv_pre", 0, usual.upsample_channels),
        upsample_factors=factors,
        upsample_kernels=tuple(kernels),
        resblock_kernels=tuple(length(f"resblocks.{i}.convs1.0", 2, 3) for i in range(blocks)),
        resblock_dilations=usual.resblock_dilations[:1] * blocks,
        sample_rate=FRAMES_A_SECOND * prod(factors),
    )

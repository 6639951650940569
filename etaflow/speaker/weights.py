"""Weights of speaker encoders as files have them, checked before they are used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etaflow.models import ModelError


def read_checkpoint(path: Path) -> Any:
    """What a file of PyTorch's holds.

    Raises:
        ModelError: the file is missing, or unreadable.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Whatever a damaged file makes of the reader: zip, unpickling and tensor errors.
    except Exception as error:
        raise ModelError(f"{path}: not a readable checkpoint ({error})") from error


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def fill(module: nn.Module, state: Mapping[str, Any], source: str | Path) -> None:
    """Load weights into a module: all that it has, and no others.

    Args:
        module: whose names and shapes the weights have to have.
        state: the weights.
        source: of the weights, for errors.

    Raises:
        ModelError: a weight is missing, unknown, of another shape, or not finite.
    """
    expected = module.state_dict()
    wrong = []
    if missing := expected.keys() - state.keys():
        wrong.append(f"missing {_listed(list(missing))}")
    if unknown := state.keys() - expected.keys():
        wrong.append(f"unknown {_listed(list(unknown))}")
    for name in sorted(expected.keys() & state.keys()):
        weight, shape = state[name], tuple(expected[name].shape)
        if not isinstance(weight, torch.Tensor):
            wrong.append(f"{name} is no tensor")
        elif tuple(weight.shape) != shape:
            wrong.append(f"{name} is {tuple(weight.shape)}, not {shape}")
        elif not weight.isfinite().all():
            wrong.append(f"{name} is not finite")
    if wrong:
        raise ModelError(f"{source}: {'; '.join(wrong[:4])}")
    module.load_state_dict(state)

"""Weights of networks as files have them, checked before they are used."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from etaflow.atomic import write_json
from etaflow.layered import LayeredNetwork
from etaflow.models import ModelError, ModelInfo

CONFIG = "config.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")

Network = TypeVar("Network", bound=LayeredNetwork)


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


def read_trained(files: Path, weights: str, make: Callable[[dict[str, Any]], Network]) -> Network:
    """The network of a folder that `save_trained` wrote.

    Args:
        files: the folder.
        weights: name of the file of weights.
        make: a network from its `sizes()`, with any weights.

    Raises:
        ModelError: a file is missing or damaged, or the weights are not those of the sizes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (weights, CONFIG):
        if not (files / file).is_file():
            raise ModelError(f"{files / file} is missing")
    try:
        sizes = json.loads((files / CONFIG).read_text(encoding="utf-8"))["network"]
        network = make(sizes)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{files / CONFIG}: no sizes of a network in it ({error!r})") from error
    try:
        state = load_file(files / weights)
    except SafetensorError as error:
        raise ModelError(f"{files / weights} is damaged ({error})") from error
    fill(network, state, files / weights)
    return network


def halve_weights(folder: Path) -> bool:
    """Round the weights in the safetensors of a folder to float16; whether there are any.

    Values below 6e-8 become 0. Numbers that are no floating-point numbers stay as they are.

    Raises:
        ModelError: a weight is not finite in float16, whose largest is 65504; or the weights are
            a pickle.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    for file in sorted(folder.rglob("*")):
        if file.suffix in PICKLES:
            raise ModelError(
                f"{file}: the weights are no safetensors, and cannot be written in float16; "
                "leave them in float32"
            )
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as stored:
            # transformers reads in the metadata which library the weights are of.
            metadata = stored.metadata()
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        halved = {
            name: value.half() if value.is_floating_point() else value
            for name, value in state.items()
        }
        wrong = [name for name, value in halved.items() if not value.isfinite().all()]
        if wrong:
            raise ModelError(f"{file}: not finite in float16: {_listed(wrong)}; use float32")
        save_file(halved, file, metadata)
    return bool(files)


def save_trained(
    network: LayeredNetwork, folder: Path, file: str, info: ModelInfo, facts: Mapping[str, Any]
) -> ModelInfo:
    """Write a model folder: weights, sizes and `model.json`.

    Args:
        network: on any device.
        folder: exists.
        file: name of the file of weights.
        info: of the model, but for the revision, which comes from the weights.
        facts: how it came about; JSON, for the reader.
    """
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / file)
    write_json(folder / CONFIG, {"network": network.sizes(), **facts})
    with (folder / file).open("rb") as stream:
        revision = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    info = replace(info, revision=revision)
    write_json(folder / "model.json", asdict(info))
    return info


def loaded(info: ModelInfo, read: Callable[[], Network]) -> Network:
    """What `read` makes of a model folder, in evaluation mode; all its layers are pretrained.

    Raises:
        ModelError: that of `read`, with the name of the model.
    """
    with torch.random.fork_rng(devices=[]):  # of the random weights that are written over
        try:
            network = read()
        except ModelError as error:
            raise ModelError(f"{info.name}: {error}") from error
    network.pretrained = len(network.layers)
    return network.eval()

"""The kinds of separators: made from settings, read from folders, written into them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etaflow.models import ModelError, ModelInfo, read_model_info
from etaflow.separation.network import Separator
from etaflow.weights import loaded, read_trained, save_trained

KINDS = ("sepformer", "conv-tasnet")
# The architectures that others publish; a kind each, whose class has `from_published(info, files)`.
PUBLISHED = ("sepformer",)
TRAINED = "etaflow-separator"
WEIGHTS = "separator.safetensors"


def _network_class(kind: str) -> Any:
    """The class of a kind: it has the class methods `create(settings)` and `from_sizes`."""
    if kind == "sepformer":
        from etaflow.separation.sepformer import SepFormer

        return SepFormer
    if kind == "conv-tasnet":
        from etaflow.separation.conv_tasnet import ConvTasNetSeparator

        return ConvTasNetSeparator
    raise ModelError(f"no separator of kind {kind!r}; there are {', '.join(KINDS)}")


def _from_sizes(sizes: Mapping[str, Any]) -> Separator:
    network: Separator = _network_class(sizes["kind"]).from_sizes(sizes)
    return network


def create_separator(settings: Mapping[str, Any], model: Path | None = None) -> Separator:
    """The separator to train, in evaluation mode; new weights are those of PyTorch's seed.

    Args:
        settings: `kind`, `sample_rate` (Hz), `speakers`, `channels`, `kernel` (samples), `blocks`,
            `layers` (of a block) and, of a SepFormer, `chunk` (frames) and `reach` (chunks); or
            `pretrained`: a separator to train further.
        model: the folder of the model that the settings name, if they name one.

    Raises:
        ModelError: there is no such kind, sizes do not go together, or the model cannot be used.
    """
    if "pretrained" not in settings:
        network: Separator = _network_class(settings["kind"]).create(settings)
        return network.eval()
    if model is None:
        raise ModelError(f"{settings['pretrained']}: the folder of this separator is not given")
    return load_separator(model)[1]


def load_separator(folder: str | Path) -> tuple[ModelInfo, Separator]:
    """The separator of a model folder, in evaluation mode; all its layers count as pretrained.

    Raises:
        ModelError: the architecture is no separator, or weights are missing or do not fit.
    """
    info, files = read_model_info(folder)
    if info.architecture != TRAINED and info.architecture not in PUBLISHED:
        raise ModelError(f"{info.name}: {info.architecture!r} is no separator")

    def read() -> Separator:
        if info.architecture == TRAINED:
            return read_trained(files, WEIGHTS, _from_sizes)
        network: Separator = _network_class(info.architecture).from_published(info, files)
        return network

    return info, loaded(info, read)


def save_separator(
    network: Separator, folder: Path, *, name: str, weights: str, **facts: Any
) -> ModelInfo:
    """Write a model folder that `load_separator` takes.

    Args:
        network: on any device.
        folder: exists.
        name: of the model.
        weights: how far to trust it, see `etaflow.models.WEIGHTS`.
        facts: how it came about; JSON, for the reader.
    """
    info = ModelInfo(name, "run", TRAINED, "", weights, ".")
    return save_trained(network, folder, WEIGHTS, info, facts)

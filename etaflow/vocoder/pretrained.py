"""Vocoders of the model registry: what they are, and on which features they may be trained on."""

from pathlib import Path
from typing import Any

from etaflow.models import ModelInfo, read_model_info, worst_weights
from etaflow.vocoder.config import VocoderError
from etaflow.vocoder.generator import Generator


def read_generator(info: ModelInfo, files: Path) -> Generator:
    """The generator in a model's folder: its one `.pt` file, or what a run of etaflow wrote.

    Raises:
        VocoderError: there is no such file, or more than one, or it is not readable.
    """
    if info.architecture == "etaflow-vocoder":
        return Generator.from_pretrained(files)
    found = sorted(files.glob("*.pt"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise VocoderError(f"{files}: must hold one .pt file, the generator; it has {names}")
    return Generator.from_pretrained(found[0])


def read_start(directory: str | Path, dim: int, facts: dict[str, Any]) -> tuple[Generator, str]:
    """The generator that a training starts from, ready to train, and its label of weights.

    Features of another revision, or prematched ones in place of raw ones, are what one trains on
    for; a checkpoint of kNN-VC's does not say what it was trained on, and is believed.

    Args:
        directory: of the model's `model.json`.
        dim: D of the features to train on.
        facts: `layer` and `normalize` of the features to train on.

    Raises:
        ModelError: there is no such model.
        VocoderError: its files are no vocoder, or it was trained on features of another size, layer
            or `normalize`.
    """
    info, files = read_model_info(directory)
    generator = read_generator(info, files)
    known = generator.trained_on
    of_start = {"dim": generator.config.feature_dim, **known}
    for key, value in {"dim": dim, **facts}.items():
        if of_start.get(key, value) != value:
            raise VocoderError(
                f"start: {info.name} was trained on features of {key} {of_start[key]!r}; those to "
                f"train on have {key} {value!r}. Take another model to start from, or `generator` "
                "in place of `start` to train from nothing"
            )
    label = worst_weights([info.weights, known.get("weights", info.weights)])
    return generator.add_weight_norm().train(), label

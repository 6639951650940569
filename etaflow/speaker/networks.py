"""The kinds of speaker networks: made from settings, read from folders, written into them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etaflow.models import ModelError, ModelInfo, read_model_info
from etaflow.speaker.network import SpeakerNetwork
from etaflow.weights import loaded, read_trained, save_trained

KINDS = ("ecapa", "xvector", "mean", "weighted", "wavlm-sv", "wavlm-rawnet")
# The kind of each architecture that others publish, whose class has `from_published(info, files)`.
PUBLISHED = {
    "ecapa": "ecapa",
    "xvector": "xvector",
    "unispeech": "weighted",
    "wavlm-sv": "wavlm-sv",
}
TRAINED = "etaflow-encoder"
WEIGHTS = "encoder.safetensors"


def _network_class(kind: str) -> Any:
    """The class of a kind: it has the class methods `create(settings, model)` and `from_sizes`.

    Imports stand in the open, where the search for a rule's code finds them.
    """
    if kind in ("ecapa", "xvector"):
        from etaflow.speaker.tdnn import TDNNNetwork

        return TDNNNetwork
    if kind == "mean":
        from etaflow.speaker.mean import MeanNetwork

        return MeanNetwork
    if kind == "weighted":
        from etaflow.speaker.unispeech import WeightedNetwork

        return WeightedNetwork
    if kind == "wavlm-sv":
        from etaflow.speaker.wavlm_sv import WavLMXVector

        return WavLMXVector
    if kind == "wavlm-rawnet":
        from etaflow.speaker.wavlm_rawnet import WavLMRawNet

        return WavLMRawNet
    raise ModelError(f"no speaker network of kind {kind!r}; there are {', '.join(KINDS)}")


def create_network(settings: Mapping[str, Any], model: Path | None = None) -> SpeakerNetwork:
    """The network to train, in evaluation mode; new weights are those of PyTorch's seed.

    Args:
        settings: a `kind` and what goes with it, or `pretrained`: an encoder to train further.
        model: the folder of the model that the settings name, if they name one.

    Raises:
        ModelError: there is no such kind, a size does not go with it, or the model cannot be used.
    """
    if "pretrained" not in settings:
        network: SpeakerNetwork = _network_class(settings["kind"]).create(settings, model)
        return network.eval()
    if model is None:
        raise ModelError(f"{settings['pretrained']}: the folder of this encoder is not given")
    return load_network(model)[1]


def _from_sizes(sizes: Mapping[str, Any]) -> SpeakerNetwork:
    network: SpeakerNetwork = _network_class(sizes["kind"]).from_sizes(sizes)
    return network


def load_network(folder: str | Path) -> tuple[ModelInfo, SpeakerNetwork]:
    """The encoder of a model folder, in evaluation mode; all its layers count as pretrained.

    Raises:
        ModelError: the architecture is no speaker encoder, or none that can be trained, or weights
            are missing or do not fit.
    """
    info, files = read_model_info(folder)
    if info.architecture == "resemblyzer":
        raise ModelError(f"{info.name}: resemblyzer comes as a package and cannot be trained")
    if info.architecture != TRAINED and info.architecture not in PUBLISHED:
        raise ModelError(f"{info.name}: {info.architecture!r} is no speaker encoder")

    def read() -> SpeakerNetwork:
        if info.architecture == TRAINED:
            return read_trained(files, WEIGHTS, _from_sizes)
        kind = PUBLISHED[info.architecture]
        network: SpeakerNetwork = _network_class(kind).from_published(info, files)
        return network

    return info, loaded(info, read)


def save_network(
    network: SpeakerNetwork, folder: Path, *, name: str, weights: str, **facts: Any
) -> ModelInfo:
    """Write a model folder that `load_network` and `load_speaker_encoder` take.

    Args:
        network: on any device.
        folder: exists.
        name: of the model.
        weights: how far to trust it, see `etaflow.models.WEIGHTS`.
        facts: how it came about; JSON, for the reader.
    """
    info = ModelInfo(name, "run", TRAINED, "", weights, ".")
    return save_trained(network, folder, WEIGHTS, info, facts)

"""What the time of a unit depends on, in words: models, sizes, batches.

Two jobs of one rule and one variant take the same time a unit, as far as the config can say.
"""

import json
from collections.abc import Mapping
from typing import Any

from etaflow.bundles import PARTS, shipped_bundle

Config = Mapping[str, Any]
# Dimensions of frames and of speaker embeddings, for what is written; by the architecture's name.
FRAME_DIMS = {"tiny": 128, "base": 768, "large": 1024}
EMBEDDING_DIMS = {
    "resemblyzer": 256,
    "ecapa": 192,
    "xvector": 512,
    "unispeech": 256,
    "wavlm-sv": 512,
}


def ssl_label(config: Config, model: str) -> str:
    """`wavlm-large`, whether downloaded or of random weights; of one trained here, its sizes."""
    if model in config["pretraining"]:
        return wavlm_label(config, config["pretraining"][model]["network"])
    entry = config["models"][model]
    if "repo" in entry:
        return str(entry["repo"]).rpartition("/")[2]
    if entry["source"] == "random":
        return str(entry["architecture"])
    return f"{entry['architecture']} {model}"


def wavlm_label(config: Config, network: Mapping[str, Any]) -> str:
    """A WavLM of `pretraining` by its sizes: `wavlm 4 layers of 256`."""
    if "pretrained" in network:
        return ssl_label(config, network["pretrained"])
    return f"wavlm {network['num_hidden_layers']} layers of {network['hidden_size']}"


def targets_variant(config: Config, targets: Mapping[str, Any]) -> str:
    """What a pretraining predicts."""
    clusters = f"{targets['clusters']} clusters"
    if "model" not in targets:
        return f"{targets['kind']} {clusters}"
    return f"{ssl_label(config, targets['model'])} layer {targets['layer']} {clusters}"


def pretraining_variant(config: Config, entry: Mapping[str, Any]) -> str:
    """A step of a pretraining."""
    label = wavlm_label(config, entry["network"])
    return f"{label} {entry['batch_size']} x {entry['crop_seconds']:g} s {entry['precision']}"


def frame_dim(config: Config, ssl: str) -> int | None:
    """Dimensions of a frame, or None where the name of the model does not tell."""
    model = config["ssl"][ssl]["model"]
    while model in config["pretraining"]:
        network = config["pretraining"][model]["network"]
        if "hidden_size" in network:
            return int(network["hidden_size"])
        model = network["pretrained"]
    if is_shipped(config["models"][model]):
        return int(shipped_sizes("wavlm")["hidden_size"])
    label = ssl_label(config, model)
    found = [dim for size, dim in FRAME_DIMS.items() if size in label.split("-")]
    return found[0] if len(found) == 1 else None


def network_label(config: Config, network: Mapping[str, Any]) -> str:
    """A network of `encoders` or `separators`, by its kind and sizes."""
    if "pretrained" in network:
        return model_label(config, network["pretrained"])
    parts = [str(network["kind"])]
    if "model" in network:
        parts.append(ssl_label(config, network["model"]))
    if "layer" in network:
        parts.append(f"layer {network['layer']}")
    keys = ("channels", "kernel", "blocks", "layers", "chunk", "reach", "dim")
    sizes = [f"{key} {network[key]}" for key in keys if key in network]
    return " ".join([*parts, *sizes])


def model_label(config: Config, name: str) -> str:
    """A speaker encoder or separator, by the kind and sizes that it has."""
    for section in ("encoders", "separators"):
        if name in config[section]:
            return network_label(config, config[section][name]["network"])
    entry = config["models"][name]
    if entry["architecture"] in ("resemblyzer", "xvector"):
        return str(entry["architecture"])
    if entry["architecture"] == "ecapa":  # as published by SpeechBrain
        return "ecapa channels 1024 dim 192"
    if entry["architecture"] == "sepformer":
        return "sepformer as published"
    return f"{entry['architecture']} {name}"


def embedding_dim(config: Config, name: str) -> int | None:
    """Dimensions of the embeddings of an encoder; None if they are not known."""
    if name in config["encoders"]:
        network = config["encoders"][name]["network"]
        if "pretrained" in network:
            return embedding_dim(config, network["pretrained"])
        dim = network.get("dim")
        return None if dim is None else int(dim)
    if is_shipped(config["models"][name]):
        return int(shipped_sizes("etaflow-encoder")["network"]["dim"])
    return EMBEDDING_DIMS.get(config["models"][name]["architecture"])


def is_shipped(entry: Mapping[str, Any]) -> bool:
    """Whether a model comes with etaflow."""
    return entry["architecture"] in PARTS and entry["source"] == "package"


def shipped_sizes(architecture: str) -> dict[str, Any]:
    """The `config.json` of a model that comes with etaflow."""
    file = shipped_bundle() / PARTS[architecture] / "config.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def features_variant(config: Config, ssl: str, layers: str) -> str:
    """How features are made; one pass of several layers goes to the deepest."""
    deepest = max(int(layer) for layer in layers.split())
    entry = config["ssl"][ssl]
    return f"{ssl_label(config, entry['model'])} layer {deepest} {entry['precision']}"


def vocoder_label(entry: Mapping[str, Any]) -> str:
    """A vocoder by its size: `hifigan channels 512 kernels 3,7,11`."""
    if "generator" not in entry:
        return f"like {entry['start']}" if "start" in entry else "published"
    generator = entry["generator"]
    if generator.get("kind", "hifigan") != "hifigan":
        sizes = ("hidden_dim", "intermediate_dim", "blocks")
        hidden, intermediate, blocks = (generator[size] for size in sizes)
        finer = f" upsample {generator['upsample']}" if "upsample" in generator else ""
        return f"{generator['kind']} {blocks} blocks {hidden},{intermediate}{finer}"
    kernels = ",".join(str(kernel) for kernel in generator["resblock_kernels"])
    return f"hifigan channels {generator['upsample_channels']} kernels {kernels}"


def vocoder_variant(entry: Mapping[str, Any]) -> str:
    """A step of a vocoder's training."""
    joined = entry["adversarial_from"] / entry["steps"] if entry["steps"] else 0
    adversarial = f" adversarial from {joined:.0%}" if joined else ""
    windows = ",".join(f"{each:g}" for each in entry.get("mel_windows", []))
    mels = f" mel windows {windows}" if windows else ""
    return (
        f"{vocoder_label(entry)} width {entry['discriminator']['width']:g} "
        f"batch {entry['batch_size']} x {entry['segment_frames']} frames "
        f"{entry['precision']}{adversarial}{mels}"
    )


def encoder_variant(config: Config, entry: Mapping[str, Any]) -> str:
    """A step of a speaker encoder's training."""
    trained = entry.get("trained_layers")
    layers = "" if trained is None else f" upper {trained} layers"
    return (
        f"{network_label(config, entry['network'])}{layers} {entry['loss']['kind']} "
        f"{entry['speakers']} x {entry['utterances']} x {entry['crop_seconds']:g} s "
        f"{entry['precision']}"
    )


def separator_variant(config: Config, entry: Mapping[str, Any]) -> str:
    """A step of a separator's training."""
    trained = entry.get("trained", "all")
    blocks = f" last {trained['blocks']} blocks" if isinstance(trained, Mapping) else ""
    blocks = " decoder" if trained == "decoder" else blocks
    return (
        f"{network_label(config, entry['network'])}{blocks} "
        f"{entry['batch_size']} x {entry['crop_seconds']:g} s {entry['precision']}"
    )


def transcribing_variant(config: Config) -> str:
    """The recogniser of the conversion."""
    asr = config["conversion"]["asr"]
    if "model" in asr:
        return ssl_label(config, asr["model"])
    return f"{asr['engine']} {asr.get('grammar') or 'without a grammar'}"

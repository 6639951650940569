"""Checkpoints of UniSpeech's speaker encoders in the names and sizes of ours.

They hold `{"model": weights}`. The self-supervised model is under `feature_extract.model`, in the
names of fairseq and WavLM; it is WavLM if it has relative positions, else HuBERT.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from etaflow.models import ModelError

_PREFIX = "feature_extract.model."
# Heads of the pretraining and of the speaker training, which no embedding passes.
UNUSED = (
    f"{_PREFIX}mask_emb",
    f"{_PREFIX}final_proj.",
    f"{_PREFIX}label_embs_concat",
    "loss_calculator.",
)
_KERNELS, _STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
_HEAD = 64  # dimensions a head in every published HuBERT
_LAYER_NORM_EPS = 1e-5  # of torch's layer norm, by which upstream divides a waveform's variance

# (pattern, replacement) from published names to those of `etaflow.speaker.unispeech`.
_BLOCK = r"encoder\.layers\.(\d+)\."
_NAMES = [
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    # Layer norm stands between two transpositions, group norm alone.
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?(?=weight|bias)",
     r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"layer_norm\.", "feature_projection.layer_norm."),
    (r"post_extract_proj\.", "feature_projection.projection."),
    (r"encoder\.pos_conv\.0\.weight_g",
     "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v",
     "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.bias", "encoder.pos_conv_embed.conv.bias"),
    (_BLOCK + r"self_attn\.grep_linear\.", r"encoder.layers.\1.attention.gru_rel_pos_linear."),
    (_BLOCK + r"self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (_BLOCK + r"self_attn\.relative_attention_bias\.",
     r"encoder.layers.\1.attention.rel_attn_embed."),
    (_BLOCK + r"self_attn\.([kvq]|out)_proj\.", r"encoder.layers.\1.attention.\2_proj."),
    (_BLOCK + r"self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (_BLOCK + r"fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (_BLOCK + r"fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (_BLOCK + r"final_layer_norm\.", r"encoder.layers.\1.final_layer_norm."),
    (r"encoder\.layer_norm\.", "encoder.layer_norm."),
]  # fmt: skip
_HEAD_NAMES = [
    (r"feature_weight$", "layer_sum.weight"),
    (r"layer1\.", "entry."),
    (r"layer(\d)\.Conv1dReluBn1\.", r"blocks.\1.first."),
    (r"layer(\d)\.Conv1dReluBn2\.", r"blocks.\1.last."),
    (r"layer(\d)\.Res2Conv1dReluBn\.convs\.(\d+)\.", r"blocks.\1.groups.\2.conv."),
    (r"layer(\d)\.Res2Conv1dReluBn\.bns\.(\d+)\.", r"blocks.\1.groups.\2.bn."),
    (r"layer(\d)\.SE_Connect\.linear1\.", r"blocks.\1.squeeze."),
    (r"layer(\d)\.SE_Connect\.linear2\.", r"blocks.\1.excite."),
    (r"conv\.", "merge."),
    (r"pooling\.linear1\.", "pooling.inner."),
    (r"pooling\.linear2\.", "pooling.outer."),
    (r"bn\.", "pooling.bn."),
    (r"linear\.", "linear."),
]


def _renamed(name: str) -> str:
    """The name of a published weight in our network; itself if it has none."""
    inner = name.startswith(_PREFIX)
    for pattern, replacement in _NAMES if inner else _HEAD_NAMES:
        rest = name.removeprefix(_PREFIX)
        if match := re.match(pattern, rest):
            found = match.expand(replacement) + rest[match.end() :]
            if inner:
                return f"backbone.model.{found}"
            # Upstream's layers 2 to 4 are our blocks 0 to 2.
            return re.sub(r"^blocks\.(\d)", lambda m: f"blocks.{int(m[1]) - 2}", found)
    return name


def unispeech_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights under the names of `WeightedNetwork`, without `UNUSED`; unknown ones stay."""
    return {_renamed(name): w for name, w in state.items() if not name.startswith(UNUSED)}


def _shape(state: Mapping[str, Any], name: str, dimensions: int) -> tuple[int, ...]:
    weight = state.get(name)
    if not isinstance(weight, torch.Tensor):
        raise ModelError(f"{name} is missing; it is no UniSpeech encoder on WavLM or HuBERT")
    if weight.dim() != dimensions:
        raise ModelError(f"{name} is {tuple(weight.shape)}, not of {dimensions} dimensions")
    return tuple(weight.shape)


def _backbone_config(state: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of transformers for the self-supervised model with these weights."""
    convolutions = [
        _shape(state, f"{_PREFIX}feature_extractor.conv_layers.{i}.0.weight", 3)
        for i in range(len(_KERNELS))
    ]
    if [kernel for _, _, kernel in convolutions] != _KERNELS:
        raise ModelError(f"convolutions of other kernels than {_KERNELS}")
    dim = _shape(state, f"{_PREFIX}post_extract_proj.weight", 2)[0]
    _, group, positions = _shape(state, f"{_PREFIX}encoder.pos_conv.0.weight_v", 3)
    numbers = (re.match(rf"{re.escape(_PREFIX)}{_BLOCK}", name) for name in state)
    depth = max((int(number[1]) + 1 for number in numbers if number), default=0)
    block = f"{_PREFIX}encoder.layers.0."
    # Layer norm among the convolutions goes with norms before each block, and normalised waveforms,
    # in every published model; group norm with neither.
    large = f"{_PREFIX}feature_extractor.conv_layers.0.2.1.weight" in state
    config: dict[str, Any] = {
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "intermediate_size": _shape(state, f"{block}fc1.weight", 2)[0],
        "conv_dim": [size for size, _, _ in convolutions],
        "conv_kernel": _KERNELS,
        "conv_stride": _STRIDES,
        "conv_bias": f"{_PREFIX}feature_extractor.conv_layers.0.0.bias" in state,
        "feat_extract_norm": "layer" if large else "group",
        "do_stable_layer_norm": large,
        "num_conv_pos_embeddings": positions,
        "num_conv_pos_embedding_groups": dim // group,
    }
    if f"{block}self_attn.relative_attention_bias.weight" in state:
        buckets, heads = _shape(state, f"{block}self_attn.relative_attention_bias.weight", 2)
        config |= {"model_type": "wavlm", "num_buckets": buckets, "num_attention_heads": heads}
    else:
        config |= {"model_type": "hubert", "num_attention_heads": dim // _HEAD}
    if not config["num_attention_heads"] or dim % config["num_attention_heads"]:
        raise ModelError(f"{dim} dimensions do not make {config['num_attention_heads']} heads")
    return config


def unispeech_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The `sizes()` of the `WeightedNetwork` with these published weights.

    Raises:
        ModelError: a weight is missing without which they cannot be told.
    """
    config = _backbone_config(state)
    return {
        "kind": "weighted",
        "backbone": {
            "config": config,
            "normalize": config["do_stable_layer_norm"],
            "variance_floor": _LAYER_NORM_EPS,
            "final_norm": True,
        },
        "channels": _shape(state, "layer1.conv.weight", 3)[0],
        "pooled": _shape(state, "conv.weight", 3)[0],
        "attention": _shape(state, "pooling.linear1.weight", 3)[0],
        "squeeze": _shape(state, "layer2.SE_Connect.linear1.weight", 2)[0],
        "dim": _shape(state, "linear.weight", 2)[0],
    }

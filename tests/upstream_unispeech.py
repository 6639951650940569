"""UniSpeech's speaker encoder in plain PyTorch, as a reference to compare with.

One waveform at a time, with the names of the published checkpoints: those of
https://github.com/microsoft/UniSpeech, downstreams/speaker_verification/models/ecapa_tdnn.py, and,
under `feature_extract.model`, of WavLM (https://github.com/microsoft/unilm, wavlm) and fairseq's
HuBERT.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
MAX_DISTANCE = 800


class Transposed(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.transpose(1, 2)


def convolution(number: int, inputs: int, width: int, large: bool, bias: bool) -> nn.Sequential:
    conv = nn.Conv1d(inputs, width, KERNELS[number], STRIDES[number], bias=bias)
    if large:
        norm = nn.Sequential(Transposed(), nn.LayerNorm(width), Transposed())
        return nn.Sequential(conv, nn.Dropout(0), norm, nn.GELU())
    if number == 0:
        return nn.Sequential(conv, nn.Dropout(0), nn.GroupNorm(width, width), nn.GELU())
    return nn.Sequential(conv, nn.Dropout(0), nn.GELU())


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, wavlm: bool, buckets: int | None) -> None:
        super().__init__()
        self.heads = heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(dim, dim))
        if wavlm:
            self.grep_linear = nn.Linear(dim // heads, 8)
            self.grep_a = nn.Parameter(torch.randn(1, heads, 1, 1))
        if buckets:
            self.relative_attention_bias = nn.Embedding(buckets, heads)

    def bias(self, frames: int) -> torch.Tensor:
        """(H, T, T): a bucket for each small distance, then logarithmic ones, on either side."""
        table = self.relative_attention_bias.weight
        half = len(table) // 2
        exact = half // 2
        rows = []
        for i in range(frames):
            row = []
            for j in range(frames):
                distance = abs(j - i)
                if distance >= exact:
                    share = math.log(distance / exact) / math.log(MAX_DISTANCE / exact)
                    distance = min(exact + int(share * (half - exact)), half - 1)
                row.append(distance + half * (j > i))
            rows.append(row)
        return table[torch.tensor(rows)].permute(2, 0, 1)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        frames, dim = hidden.shape

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(frames, self.heads, -1).transpose(0, 1)

        scores = split(self.q_proj(hidden)) @ split(self.k_proj(hidden)).transpose(1, 2)
        scores = scores / math.sqrt(dim // self.heads)
        if bias is not None:
            gates = self.grep_linear(split(hidden)).view(self.heads, frames, 2, 4).sum(-1).sigmoid()
            a, b = gates[..., :1], gates[..., 1:]
            scores = scores + (a * (b * self.grep_a[0] - 1) + 2) * bias
        mixed = scores.softmax(-1) @ split(self.v_proj(hidden))
        return self.out_proj(mixed.transpose(0, 1).reshape(frames, dim))


class Layer(nn.Module):
    def __init__(self, dim: int, inner: int, attention: Attention, large: bool) -> None:
        super().__init__()
        self.self_attn, self.large = attention, large
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.large:
            hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), bias)
            return hidden + self.fc2(F.gelu(self.fc1(self.final_layer_norm(hidden))))
        hidden = self.self_attn_layer_norm(hidden + self.self_attn(hidden, bias))
        return self.final_layer_norm(hidden + self.fc2(F.gelu(self.fc1(hidden))))


class SelfSupervised(nn.Module):
    """WavLM or HuBERT, `large` (layer norms first) or base."""

    def __init__(self, wavlm: bool, large: bool, dim: int = 128, depth: int = 3) -> None:
        super().__init__()
        width, inner, heads, positions = 32, 96, dim // 64, 16
        bias = large and not wavlm  # of the convolutions: as published
        self.mask_emb = nn.Parameter(torch.randn(dim))
        self.feature_extractor = nn.Module()
        self.feature_extractor.conv_layers = nn.ModuleList(
            convolution(i, width if i else 1, width, large, bias) for i in range(len(KERNELS))
        )
        self.layer_norm = nn.LayerNorm(width)
        self.post_extract_proj = nn.Linear(width, dim)
        self.encoder = nn.Module()
        conv = nn.Conv1d(dim, dim, positions, padding=positions // 2, groups=4)
        self.encoder.pos_conv = nn.Sequential(nn.utils.weight_norm(conv, dim=2), nn.GELU())
        self.encoder.layers = nn.ModuleList(
            Layer(dim, inner, Attention(dim, heads, wavlm, 32 if wavlm and i == 0 else None), large)
            for i in range(depth)
        )
        self.encoder.layer_norm = nn.LayerNorm(dim)
        if not wavlm:
            self.final_proj = nn.Linear(dim, 8)
            self.label_embs_concat = nn.Parameter(torch.randn(5, 8))
        self.wavlm, self.large = wavlm, large

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        """What each layer gets, and what the encoder gives, (T, D) of a waveform (samples,)."""
        if self.large:
            wave = F.layer_norm(wave, wave.shape)
        hidden = wave[None, None]
        for layer in self.feature_extractor.conv_layers:
            hidden = layer(hidden)
        hidden = self.post_extract_proj(self.layer_norm(hidden.transpose(1, 2)))[0]
        positions = self.encoder.pos_conv(hidden.t()[None])[0, :, : len(hidden)].t()
        hidden = hidden + positions
        if not self.large:
            hidden = self.encoder.layer_norm(hidden)
        bias = self.encoder.layers[0].self_attn.bias(len(hidden)) if self.wavlm else None
        states = []
        for layer in self.encoder.layers:
            states.append(hidden)
            hidden = layer(hidden, bias)
        return [*states, self.encoder.layer_norm(hidden) if self.large else hidden]


class ConvReluNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.bn(F.relu(self.conv(hidden)))


class Res2(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = self.width = channels // 8
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(7)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(7))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        parts = list(hidden.split(self.width, 1))
        before = torch.zeros_like(parts[0])
        for i in range(7):
            before = parts[i] = self.bns[i](F.relu(self.convs[i](parts[i] + before)))
        return torch.cat(parts, 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scale = self.linear2(F.relu(self.linear1(hidden.mean(2)))).sigmoid()
        return hidden * scale[:, :, None]


class Block(nn.Module):
    def __init__(self, channels: int, inner: int, dilation: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = ConvReluNorm(channels, channels)
        self.Res2Conv1dReluBn = Res2(channels, dilation)
        self.Conv1dReluBn2 = ConvReluNorm(channels, channels)
        self.SE_Connect = SqueezeExcite(channels, inner)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(hidden)))
        return hidden + self.SE_Connect(inner)


class UniSpeechEncoder(nn.Module):
    def __init__(self, model: SelfSupervised, dim: int = 12, speakers: int = 3) -> None:
        super().__init__()
        size, channels, pooled, inner = model.layer_norm.normalized_shape[0], 32, 48, 24
        size = model.post_extract_proj.out_features
        self.feature_extract = nn.Module()
        self.feature_extract.model = model
        self.feature_weight = nn.Parameter(torch.randn(len(model.encoder.layers) + 1))
        self.instance_norm = nn.InstanceNorm1d(size)
        self.layer1 = ConvReluNorm(size, channels, 5)
        for number, dilation in ((2, 2), (3, 3), (4, 4)):
            setattr(self, f"layer{number}", Block(channels, inner, dilation))
        self.conv = nn.Conv1d(3 * channels, pooled, 1)
        self.pooling = nn.Module()
        self.pooling.linear1 = nn.Conv1d(pooled, inner, 1)
        self.pooling.linear2 = nn.Conv1d(inner, pooled, 1)
        self.bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, dim)
        self.loss_calculator = nn.Module()
        self.loss_calculator.projection = nn.Linear(dim, speakers, bias=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Embedding (V,) of a waveform (samples,)."""
        states = torch.stack(self.feature_extract.model(wave))
        mixed = (self.feature_weight.softmax(0)[:, None, None] * states).sum(0)
        first = self.layer1(self.instance_norm(mixed.t()[None] + 1e-6))
        second = self.layer2(first)
        third = self.layer3(second)
        fourth = self.layer4(third)
        merged = F.relu(self.conv(torch.cat([second, third, fourth], 1)))
        weights = self.pooling.linear2(torch.tanh(self.pooling.linear1(merged))).softmax(2)
        mean = (weights * merged).sum(2)
        variance = (weights * merged**2).sum(2) - mean**2
        pooled = torch.cat([mean, variance.clamp(min=1e-9).sqrt()], 1)
        return self.linear(self.bn(pooled))[0]


def random_encoder(wavlm: bool, large: bool) -> UniSpeechEncoder:
    """In evaluation mode; no norm is the identity, which would hide one at the wrong place."""
    torch.manual_seed(3)
    encoder = UniSpeechEncoder(SelfSupervised(wavlm, large))
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return encoder.eval()

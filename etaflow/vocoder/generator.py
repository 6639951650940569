"""The HiFi-GAN generator of kNN-VC (arXiv 2010.05646, 2305.18975)."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from etaflow.atomic import atomic_file, write_json

WEIGHTS, CONFIG = "generator.safetensors", "config.json"


class VocoderError(ValueError):
    """A vocoder's configuration or folder that cannot be used."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The size of a generator; the defaults are kNN-VC's (with `feature_dim=1024`).

    Attributes:
        feature_dim: D, the width of the features.
        hidden_dim: width after the first, linear layer.
        upsample_channels: channels before upsampling; each stage halves them.
        upsample_factors: their product is the hop length in samples.
        upsample_kernels: a kernel a stage; kernel minus factor must be even.
        resblock_kernels: odd kernels of the residual blocks that each stage averages.
        resblock_dilations: a tuple for each kernel: three dilations (HiFi-GAN's ResBlock1), or
            two (its lighter ResBlock2), the same number for all.
        sample_rate: of the waveform, Hz.
    """

    feature_dim: int
    hidden_dim: int = 512
    upsample_channels: int = 512
    upsample_factors: tuple[int, ...] = (10, 8, 2, 2)
    upsample_kernels: tuple[int, ...] = (20, 16, 4, 4)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    sample_rate: int = 16_000

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GeneratorConfig":
        """Build from JSON values (lists become tuples); unknown or missing keys raise."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(values.keys() - known):
            raise VocoderError(f"generator: unknown key(s) {', '.join(unknown)}")
        if missing := sorted(required - values.keys()):
            raise VocoderError(f"generator: missing key(s) {', '.join(missing)}")
        return cls(**{name: _tuples(value) for name, value in values.items()})

    def __post_init__(self) -> None:
        pairs = list(zip(self.upsample_factors, self.upsample_kernels, strict=False))
        depths = {len(dilations) for dilations in self.resblock_dilations}
        stages = len(self.upsample_factors)
        if len(self.upsample_kernels) != stages or any(k < u or (k - u) % 2 for u, k in pairs):
            raise VocoderError("generator: one upsample kernel a factor, larger by an even number")
        if len(self.resblock_dilations) != len(self.resblock_kernels) or len(depths) != 1:
            raise VocoderError("generator: one tuple of dilations a resblock kernel, of one length")
        if not depths <= {2, 3} or any(kernel % 2 == 0 for kernel in self.resblock_kernels):
            raise VocoderError("generator: resblocks have odd kernels and two or three dilations")
        if self.upsample_channels % 2**stages:
            raise VocoderError(f"generator: upsample_channels must be a multiple of {2**stages}")

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return prod(self.upsample_factors)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class Generator(nn.Module):
    """Features (B, T, D) to a waveform (B, 1, hop_length T) in [-1, 1]; no loudness is changed.

    A linear layer, then SpeechBrain's HiFi-GAN generator: `lin_pre`, `hifigan.conv_pre`,
    `hifigan.ups`, `hifigan.resblocks`, `hifigan.conv_post` are the modules of kNN-VC's generator.
    kNN-VC's size has 16,523,393 parameters, counted as at inference: weight and bias of each layer
    (`num_parameters`). The weight norm of training stores 10,113 magnitudes beside them.

    Attributes:
        config: the size.
        trained_on: what it was trained on (model, layer, normalize, weights, step); empty before
            training.
    """

    def __init__(self, config: GeneratorConfig, trained_on: dict[str, Any] | None = None) -> None:
        # Imported here: who only asks for a mel distance need not wait for SpeechBrain.
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator
        from speechbrain.nnet.CNN import Conv1d

        super().__init__()
        self.config, self.trained_on = config, trained_on or {}
        self.lin_pre = nn.Linear(config.feature_dim, config.hidden_dim)
        self.hifigan = HifiganGenerator(
            in_channels=config.hidden_dim,
            out_channels=1,
            resblock_type="1" if len(config.resblock_dilations[0]) == 3 else "2",
            resblock_dilation_sizes=config.resblock_dilations,
            resblock_kernel_sizes=config.resblock_kernels,
            upsample_kernel_sizes=config.upsample_kernels,
            upsample_initial_channel=config.upsample_channels,
            upsample_factors=config.upsample_factors,
        )
        for module in self.hifigan.modules():
            if isinstance(module, Conv1d):
                # SpeechBrain pads by reflection, which kNN-VC does not and a one-frame input
                # does not survive.
                module.padding_mode = "constant"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Synthesise (B, T, D) to (B, 1, hop_length T)."""
        waveform: torch.Tensor = self.hifigan(self.lin_pre(features).transpose(1, 2))
        return waveform

    def num_parameters(self) -> int:
        """Weights and biases, without the magnitudes that weight norm keeps beside them."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not name.endswith("parametrizations.weight.original0")
        )

    def save_pretrained(self, directory: str | Path, **facts: str | int | float | bool) -> None:
        """Write `generator.safetensors` and `config.json`, each whole or not at all.

        Args:
            directory: made if it is not there.
            **facts: become `trained_on`; without any, `trained_on` stays as it is.
        """
        self.trained_on = dict(facts) or self.trained_on
        weights = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        with atomic_file(Path(directory) / WEIGHTS) as part:
            save_file({name: value.contiguous() for name, value in weights.items()}, part)
        config = {"generator": asdict(self.config), "trained_on": self.trained_on}
        write_json(Path(directory) / CONFIG, config)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Generator":
        """Read what `save_pretrained` wrote, on the CPU, in evaluation mode.

        Raises:
            VocoderError: a file is missing or unreadable, or keys or weights are unknown, missing
                or of another shape.
        """
        path = Path(source) / CONFIG
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            weights = load_file(Path(source) / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise VocoderError(f"{source}: not a readable vocoder ({error})") from error
        if not isinstance(values, dict) or values.keys() != {"generator", "trained_on"}:
            raise VocoderError(f"{path}: must have the keys generator and trained_on, no others")
        generator = cls(GeneratorConfig.from_dict(values["generator"]), values["trained_on"])
        try:
            generator.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise VocoderError(f"{Path(source) / WEIGHTS}: {error}") from error
        return generator.eval()

"""A generator of whatever kind: synthesis of the whole and in chunks, and its files."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from etaflow.atomic import atomic_file, write_json
from etaflow.vocoder.config import (
    AnyConfig,
    HarmonicConfig,
    IstftConfig,
    VocoderError,
    config_values,
    read_config,
)
from etaflow.vocoder.harmonic import START, Harmonic, Position
from etaflow.vocoder.hifigan import Hifigan
from etaflow.vocoder.istft import Istft
from etaflow.vocoder.weights import fold_weight_norm, misfits, read_checkpoint, upstream_name

WEIGHTS, CONFIG = "generator.safetensors", "config.json"
CHUNK_FRAMES = 500  # ten seconds; at kNN-VC's size a signal of one layer then takes 20 MB


class Generator(nn.Module):
    """Features (B, T, D) to a waveform (B, 1, hop_length T) in [-1, 1]; no loudness is changed.

    The config says of which kind: kNN-VC's HiFi-GAN (`etaflow.vocoder.hifigan`), one that ends in
    an inverse STFT (`etaflow.vocoder.istft`), or one that filters pulses and noise
    (`etaflow.vocoder.harmonic`). kNN-VC's size has 16,523,393 parameters, counted
    as at inference: weight and bias of each layer (`num_parameters`). The weight norm of training
    stores 10,113 magnitudes beside them.

    Attributes:
        config: the size.
        sample_rate: of the waveform, Hz.
        hop_length: samples a frame, at `sample_rate`.
        receptive_field: frames to each side of a frame that its samples depend on, but for the
            phase of a harmonic generator's pulses, which goes on from all frames before.
        trained_on: what it was trained on (model, layer, normalize, weights, step); empty before
            training, and of a checkpoint of kNN-VC's, which does not say.
    """

    def __init__(self, config: AnyConfig, trained_on: dict[str, Any] | None = None) -> None:
        """Draw the weights of a generator to train, a HiFi-GAN's with weight norm."""
        super().__init__()
        self.config, self.trained_on = config, trained_on or {}
        self.sample_rate, self.hop_length = config.sample_rate, config.hop_length
        self.receptive_field = config.receptive_field
        self.network: Harmonic | Istft | Hifigan
        if isinstance(config, HarmonicConfig):
            self.network = Harmonic(config)
        elif isinstance(config, IstftConfig):
            self.network = Istft(config)
        else:
            self.network = Hifigan(config)

    def add_weight_norm(self) -> "Generator":
        """Put every convolution under weight norm, to train on; the waveforms stay the same."""
        self.network.add_weight_norm()
        return self

    def remove_weight_norm(self) -> "Generator":
        """Fold the magnitudes of weight norm into the weights; the waveforms stay the same."""
        self.network.remove_weight_norm()
        return self

    def forward(
        self,
        features: torch.Tensor,
        pitch: torch.Tensor | None = None,
        first_frames: torch.Tensor | None = None,
    ) -> Any:
        """Synthesise (B, T, D) to (B, 1, hop_length T); memory grows with T.

        With `pitch` (B, T), Hz, to speak at, which only a harmonic generator takes, the scores
        (B, T, BINS) by which it would have told the pitch come with the waveform; `first_frames`
        (B,) then say where items begin in its noise.
        """
        if isinstance(self.network, Harmonic):
            waveform, scores, _ = self.network(features, pitch, first_frames)
            return waveform if pitch is None else (waveform, scores)
        return self.network(features)

    def stream(self, chunks: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Synthesise features (t, D) as they come; the pieces join to what `forward` makes of all.

        A piece (hop_length n,) follows each chunk as soon as it can: the last
        `receptive_field` frames wait for those that they depend on. A chunk of t frames
        takes the time and memory of t + 2 receptive_field.
        """
        context = self.receptive_field
        seen: torch.Tensor | None = None
        made = 0  # frames of `seen` whose samples are out
        at = START
        for chunk in chunks:
            seen = chunk if seen is None else torch.cat([seen, chunk])
            ready = len(seen) - context
            if ready > made:
                piece, at = self._piece(seen, made, ready, at)
                yield piece
                kept = max(0, ready - context)
                seen, made = seen[kept:], ready - kept
        if seen is not None and len(seen) > made:
            yield self._piece(seen, made, len(seen), at)[0]

    def _piece(
        self, features: torch.Tensor, start: int, stop: int, at: Position
    ) -> tuple[torch.Tensor, Position]:
        """Samples of the frames [start, stop) of (T, D), computed from what they depend on.

        `at` is where they begin in all of the waveform; where they end is returned.
        """
        hop, context = self.hop_length, self.receptive_field
        first = max(0, start - context)
        given, kept = features[None, first : stop + context], slice((start - first) * hop, None)
        end = Position(at.frame + stop - start)
        if isinstance(self.network, Harmonic):
            position = Position(at.frame, start - first, at.phase)
            waveform, _, turns = self.network(given, position=position)
            end = Position(end.frame, 0, float(turns[0, (stop - first) * hop - 1]))
        else:
            waveform = self(given)
        return waveform[0, 0, kept][: (stop - start) * hop], end

    def synthesise(self, features: torch.Tensor, chunk_frames: int = CHUNK_FRAMES) -> torch.Tensor:
        """Synthesise features (T, D) of any length T > 0 to (hop_length T,), without gradients.

        Equals `forward` of the whole (of a harmonic generator within rounding); the memory needed
        beside the waveform does not depend on T.

        Args:
            features: on the generator's device.
            chunk_frames: frames synthesised at a time, besides their context.
        """
        hop = self.hop_length
        waveform, at = features.new_empty(hop * len(features)), START
        with torch.inference_mode():
            for start in range(0, len(features), chunk_frames):
                stop = min(start + chunk_frames, len(features))
                waveform[start * hop : stop * hop], at = self._piece(features, start, stop, at)
        return waveform

    def num_parameters(self) -> int:
        """Weights and biases, without the magnitudes that weight norm keeps beside them."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not name.endswith("parametrizations.weight.original0")
        )

    def save_pretrained(
        self,
        directory: str | Path,
        dtype: torch.dtype = torch.float32,
        **facts: str | int | float | bool,
    ) -> None:
        """Write `generator.safetensors` and `config.json`, each whole or not at all.

        Weights are written as at inference, without weight norm.

        Args:
            directory: made if it is not there.
            dtype: of the weights in the file; float16 halves it. They are read as float32.
            **facts: become `trained_on`; without any, `trained_on` stays as it is.
        """
        self.trained_on = dict(facts) or self.trained_on
        state = {name: value.detach().cpu() for name, value in self.network.state_dict().items()}
        weights = {
            name: value.to(dtype).contiguous() for name, value in fold_weight_norm(state).items()
        }
        with atomic_file(Path(directory) / WEIGHTS) as part:
            save_file(weights, part)
        config = {"generator": config_values(self.config), "trained_on": self.trained_on}
        write_json(Path(directory) / CONFIG, config)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Generator":
        """Read a vocoder, on the CPU, in evaluation mode and without weight norm.

        To train it on, call `add_weight_norm().train()`.

        Args:
            source: a folder that `save_pretrained` wrote; or a file, a checkpoint of kNN-VC's
                generator (`g_*.pt`, `prematch_g_*.pt`; see `etaflow.vocoder.weights`).

        Raises:
            VocoderError: a file is missing or unreadable, or keys or weights are unknown, missing
                or of another shape.
        """
        if Path(source).is_file():
            config, weights = read_checkpoint(source)
            return cls(config)._load(weights, source, upstream_name)
        path = Path(source) / CONFIG
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            weights = load_file(Path(source) / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise VocoderError(f"{source}: not a readable vocoder ({error})") from error
        if not isinstance(values, dict) or values.keys() != {"generator", "trained_on"}:
            raise VocoderError(f"{path}: must have the keys generator and trained_on, no others")
        generator = cls(read_config(values["generator"]), values["trained_on"])
        return generator._load(weights, Path(source) / WEIGHTS)

    def _load(
        self,
        weights: dict[str, torch.Tensor],
        source: str | Path,
        name_of: Callable[[str], str] = str,
    ) -> "Generator":
        """Take the weights of `source`, in which `name_of` tells the names of ours."""
        state = self.remove_weight_norm().network.state_dict()
        expected = {name_of(name): name for name in state}
        shapes = {theirs: state[ours].shape for theirs, ours in expected.items()}
        found = fold_weight_norm(weights)
        if wrong := misfits(found, shapes):
            raise VocoderError(f"{source}: the weights do not fit: {'; '.join(wrong)}")
        self.network.load_state_dict({expected[name]: value for name, value in found.items()})
        return self.eval()

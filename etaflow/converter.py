"""Voice conversion in one object: features, matching, waveform."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from etaflow.audio import SAMPLE_RATE, Waveform, resampled_length
from etaflow.bundles import FILES, FORMAT, shipped_bundle
from etaflow.eta import EtaModel
from etaflow.hub import HubError, pretrained_folder
from etaflow.loudness import loudness_gain
from etaflow.methods import ConversionError, Method, possible_method
from etaflow.models import read_model_info, worst_weights
from etaflow.speaker import SpeakerEncoder, load_speaker_encoder
from etaflow.ssl import SSLEncoder, SSLFeatures
from etaflow.store import Floats
from etaflow.vad import speech_span
from etaflow.vocoder import Generator
from etaflow.vocoder.generator import CHUNK_FRAMES
from etaflow.voices import Voice, mean_embedding

LOUDNESS = -16.0  # LUFS, of conversions, as in kNN-VC
FIT_CHUNKS = 5  # of up to a minute, that maps of a long source are fitted on
EMBEDDED_SECONDS = 60  # at a time


def check_inside(folder: Path, part: str) -> None:
    """Raise `ConversionError` if a model of a bundle has its files elsewhere.

    A bundle that came from others must not have other files of this machine loaded.
    """
    _, files = read_model_info(folder / part)
    if not files.resolve().is_relative_to(folder.resolve()):
        raise ConversionError(f"{folder}: {part}/model.json points outside the bundle")


class FeatureConverter:
    """Says the features (T, D) of a source in the voice of references, given by theirs."""

    def __init__(
        self, features: SSLFeatures, vocoder: Generator, eta: EtaModel | None = None
    ) -> None:
        self.features, self.vocoder, self.eta = features, vocoder, eta
        facts = {
            "model": features.info.name,
            "revision": features.info.revision,
            "layer": features.layer,
            "normalize": features.normalize,
        }
        if eta:
            eta.check_features(facts)
        for key, value in facts.items():
            if vocoder.trained_on.get(key) != value:
                raise ConversionError(
                    f"the vocoder was trained on {key} {vocoder.trained_on.get(key)!r}, "
                    f"the features have {value!r}"
                )
        if eta and vocoder.trained_on.get("eta_digest", eta.digest) != eta.digest:
            raise ConversionError(
                "the vocoder was trained on eta features of another fit than this Eta model; take "
                "both from one run"
            )

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that come out, Hz."""
        return self.vocoder.config.sample_rate

    @property
    def reads_eta(self) -> bool:
        """Whether the vocoder was trained on eta features."""
        return self.vocoder.trained_on.get("features") == "eta"

    def method(self, name: str) -> Method:
        """Read a method's name and check that the vocoder can say what it gives.

        Raises:
            ConversionError: there is no such method, it needs an Eta model and there is none, or
                the vocoder reads other features.
        """
        return possible_method(name, self.eta is not None, self.reads_eta)

    def voice(
        self,
        method: str,
        references: Sequence[Floats] = (),
        embeddings: Floats | None = None,
        topk: int = 4,
    ) -> Voice:
        """Make a target's references ready: features (T, D) of each, and embeddings (R, V)."""
        device = next(self.vocoder.parameters()).device
        return Voice(
            self.method(method), references, embeddings, self.eta, topk, device, self.reads_eta
        )

    def vocode(self, features: Floats, num_samples: int) -> Waveform:
        """Waveform of the features (T, D) of a source that has `num_samples` at 16 kHz.

        It lasts as long as the source, at `sample_rate`. The last one or two steps of a source
        have no frame of their own, because a frame sees 400 samples: there the last one is held.
        """
        device = next(self.vocoder.parameters()).device
        missing = self._missing(num_samples, len(features))
        held = np.pad(features, ((0, missing), (0, 0)), mode="edge")
        waveform = self.vocoder.synthesise(torch.from_numpy(held).float().to(device))
        return waveform[: self._length(num_samples)].cpu().numpy()

    def _missing(self, num_samples: int, frames: int) -> int:
        """Steps of a source that have no frame of their own."""
        return -(-num_samples // self.features.grid.hop_length) - frames

    def _length(self, num_samples: int) -> int:
        return resampled_length(num_samples, SAMPLE_RATE, self.sample_rate)

    def gain(self, method: str, waveform: Waveform) -> float:
        """The factor that brings a conversion to its loudness; a copy keeps the source's."""
        steps = self.method(method).steps
        return loudness_gain(waveform, self.sample_rate, LOUDNESS) if steps else 1.0


class VoiceConverter(FeatureConverter):
    """Says a source in the voice of references; `etaflow.methods.Method` says how."""

    def __init__(
        self,
        ssl: SSLEncoder,
        vocoder: Generator,
        eta: EtaModel | None = None,
        speaker_encoder: SpeakerEncoder | None = None,
    ) -> None:
        super().__init__(ssl.features, vocoder, eta)
        self.ssl, self.speaker_encoder = ssl, speaker_encoder
        labels = [ssl.info.weights, vocoder.trained_on.get("weights", "trained")]
        labels += [speaker_encoder.info.weights] if speaker_encoder else []
        self.weights = worst_weights(labels)
        if eta and speaker_encoder and eta.config["encoder"] != speaker_encoder.info.name:
            raise ConversionError(
                f"the Eta model was fitted on embeddings of {eta.config['encoder']!r}, the speaker "
                f"encoder is {speaker_encoder.info.name!r}"
            )

    @classmethod
    def from_pretrained(
        cls, bundle: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "VoiceConverter":
        """Load a bundle: that of a run, or the small one that comes with etaflow.

        One without an Eta model has no speaker encoder either, and converts by the methods without
        `-eta`.

        Args:
            bundle: its folder (`results/{run}/bundle`); or, as text, the repository of the Hugging
                Face Hub that it was uploaded to: `owner/name` or `owner/name@revision`. None: the
                one that comes with etaflow.
            device: where to compute.

        Raises:
            HubError: there is neither such a folder nor such a repository.
            ConversionError: it is no bundle, or is damaged.
            FileNotFoundError: none is named, and none came with this installation.
        """
        bundle = shipped_bundle() if bundle is None else bundle
        folder = pretrained_folder(bundle, FILES)
        if not (folder / "config.json").is_file():
            raise ConversionError(f"{bundle} is no bundle: it has no config.json")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("format") != FORMAT:
                raise ConversionError(
                    f"{bundle}: format {config.get('format')!r}, expected {FORMAT}"
                )
            with_eta = config.get("eta", True)
            for part in ("ssl", "speaker") if with_eta else ("ssl",):
                check_inside(folder, part)
            return cls(
                SSLEncoder.from_pretrained(
                    folder / "ssl", config["layer"], config["normalize"], device=device
                ),
                Generator.from_pretrained(folder / "vocoder").to(device),
                EtaModel.from_pretrained(folder / "eta") if with_eta else None,
                load_speaker_encoder(folder / "speaker", device) if with_eta else None,
            )
        except (
            *(KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError),
            *(SafetensorError, HubError, OSError),
        ) as error:
            raise ConversionError(
                f"{bundle}: damaged bundle ({type(error).__name__}: {error}); make it again"
            ) from error

    def encode_references(self, waveforms: Sequence[Waveform]) -> list[Floats]:
        """Features (T, D) of each 16 kHz waveform, of what lies between its first and last word."""
        return [
            features[self.ssl.grid.within(*speech_span(waveform))].numpy()
            for features, waveform in zip(self.ssl.encode(waveforms), waveforms, strict=True)
        ]

    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Speaker embeddings (U, V) of 16 kHz waveforms; of a long one the mean over its minutes.

        Raises:
            ConversionError: there is no speaker encoder.
        """
        if self.speaker_encoder is None:
            raise ConversionError("the methods with -eta need a speaker encoder")
        size = EMBEDDED_SECONDS * SAMPLE_RATE
        pieces, ends = [], [0]
        for waveform in waveforms:
            count = max(1, len(waveform) // size)  # the last minute may be almost two
            edges = [*(size * number for number in range(count)), len(waveform)]
            pieces += [waveform[start:stop] for start, stop in pairwise(edges)]
            ends.append(len(pieces))
        embedded = self.speaker_encoder.embed(pieces)
        return np.stack([mean_embedding(embedded[start:end]) for start, end in pairwise(ends)])

    @torch.inference_mode()
    def stream(
        self,
        source_wave: Waveform,
        reference_waves: Sequence[Waveform],
        topk: int = 4,
        method: str = "knn",
    ) -> Iterator[Waveform]:
        """Blocks of `convert`'s waveform as they are made, before its loudness is set.

        Memory does not grow with the source, which may be a map of a file. Linear maps and
        transports are fitted on its first five minutes.
        """
        asked = self.method(method)
        embeddings = None
        if asked.space == "eta" and asked.steps:
            embeddings = self.embed(reference_waves)
        references = self.encode_references(reference_waves) if asked.steps else []
        voice = self.voice(method, references, embeddings, topk)
        chunks = self.ssl.stream(source_wave)
        first = list(islice(chunks, FIT_CHUNKS))
        convert = voice.mapping(
            torch.cat(first), self.embed([source_wave])[0] if asked.needs_eta else None
        )
        device = next(self.vocoder.parameters()).device

        def mapped() -> Iterator[torch.Tensor]:
            for chunk in chain(first, chunks):
                frames = convert(chunk).to(device)
                yield from frames.split(CHUNK_FRAMES)
            total = self.ssl.num_frames(len(source_wave))
            yield frames[-1:].expand(self._missing(len(source_wave), total), -1)

        left = self._length(len(source_wave))
        for block in self.vocoder.stream(mapped()):
            waveform = block[:left].cpu().numpy()
            left -= len(waveform)
            yield waveform

    def convert(
        self,
        source_wave: Waveform,
        reference_waves: Sequence[Waveform],
        topk: int = 4,
        method: str = "knn",
    ) -> Waveform:
        """Say the source (T,) in the voice of the references, all mono at 16 kHz.

        Silence before and after the speech of references is left out.

        Returns:
            A waveform as long as the source, at `sample_rate`, at -16 LUFS (copies are left as
            they are); samples may lie beyond [-1, 1].

        Raises:
            ConversionError: there is no such method, or what it needs is missing.
            MatchError: the references have fewer frames than `topk`.
        """
        waveform = np.concatenate(list(self.stream(source_wave, reference_waves, topk, method)))
        return waveform * np.float32(self.gain(method, waveform))

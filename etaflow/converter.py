"""Voice conversion in one object: features, matching, waveform."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError

from etaflow.audio import Waveform
from etaflow.eta import EtaModel
from etaflow.hub import HubError, pretrained_folder
from etaflow.knn import match
from etaflow.models import read_model_info, worst_weights
from etaflow.speaker import SpeakerEncoder, load_speaker_encoder
from etaflow.ssl import SSLEncoder
from etaflow.store import Floats, unit_rows
from etaflow.vocoder import Generator

BUNDLE_FORMAT = "etaflow-bundle/1"
# What is fetched of a repository: pickles only where the loader of a bundled model reads them.
BUNDLE_FILES = (
    *("*.json", "*.md", "*.safetensors"),
    *("ssl/pytorch_model*.bin", "speaker/embedding_model.ckpt"),
)
METHODS = ("copy", "knn", "knn-eta-source", "knn-eta")
ETA_METHODS = ("knn-eta-source", "knn-eta")


class ConversionError(ValueError):
    """A conversion that cannot be made as asked."""


class VoiceConverter:
    """Converts the voice of a source to that of references.

    Methods:
        copy: the source's own features through the vocoder; shows what the vocoder can do.
        knn: kNN-VC (arXiv 2305.18975): each source frame becomes the mean of its `topk` nearest
            reference frames.
        knn-eta-source: the source's speaker component (Eta-WavLM, arXiv 2505.19273) gives way to
            the average one before matching against raw references, so that both sides keep b.
        knn-eta: matching among eta features of both sides; the target's component is added back.
    """

    def __init__(
        self,
        ssl: SSLEncoder,
        vocoder: Generator,
        eta: EtaModel | None = None,
        speaker_encoder: SpeakerEncoder | None = None,
    ) -> None:
        self.ssl, self.vocoder, self.eta, self.speaker_encoder = ssl, vocoder, eta, speaker_encoder
        labels = [ssl.info.weights]
        labels += [speaker_encoder.info.weights] if speaker_encoder else []
        self.weights = worst_weights(labels)
        facts = {
            "model": ssl.info.name,
            "revision": ssl.info.revision,
            "layer": ssl.layer,
            "normalize": ssl.normalize,
        }
        if eta:
            eta.check_features(facts)
        if eta and speaker_encoder and eta.config["encoder"] != speaker_encoder.info.name:
            raise ConversionError(
                f"the Eta model was fitted on embeddings of {eta.config['encoder']!r}, the speaker "
                f"encoder is {speaker_encoder.info.name!r}"
            )
        for key, value in facts.items():
            if vocoder.trained_on.get(key) != value:
                raise ConversionError(
                    f"the vocoder was trained on {key} {vocoder.trained_on.get(key)!r}, "
                    f"the features have {value!r}"
                )

    @classmethod
    def from_pretrained(
        cls, bundle: str | Path, device: str | torch.device = "cpu"
    ) -> "VoiceConverter":
        """Load the bundle that a run made.

        One without an Eta model has no speaker encoder either, and converts by `copy` and `knn`.

        Args:
            bundle: its folder (`results/{run}/bundle`); or, as text, the repository of the Hugging
                Face Hub that it was uploaded to: `owner/name` or `owner/name@revision`.
            device: where to compute.

        Raises:
            HubError: there is neither such a folder nor such a repository.
            ConversionError: it is no bundle, or is damaged.
        """
        folder = pretrained_folder(bundle, BUNDLE_FILES)
        if not (folder / "config.json").is_file():
            raise ConversionError(f"{bundle} is no bundle: it has no config.json")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("format") != BUNDLE_FORMAT:
                raise ConversionError(
                    f"{bundle}: format {config.get('format')!r}, expected {BUNDLE_FORMAT}"
                )
            with_eta = config.get("eta", True)
            for part in ("ssl", "speaker") if with_eta else ("ssl",):
                # A bundle from elsewhere must not have other files of this machine loaded.
                _, files = read_model_info(folder / part)
                if not files.resolve().is_relative_to(folder.resolve()):
                    raise ConversionError(f"{bundle}: {part}/model.json points outside the bundle")
            converter = cls(
                SSLEncoder.from_pretrained(
                    folder / "ssl", config["layer"], config["normalize"], device=device
                ),
                Generator.from_pretrained(folder / "vocoder").to(device),
                EtaModel.from_pretrained(folder / "eta") if with_eta else None,
                load_speaker_encoder(folder / "speaker", device) if with_eta else None,
            )
            converter.weights = worst_weights([converter.weights, config["weights"]])
            return converter
        except (KeyError, json.JSONDecodeError, SafetensorError, HubError, OSError) as error:
            raise ConversionError(
                f"{bundle}: damaged bundle ({type(error).__name__}: {error}); make it again"
            ) from error

    def transform(
        self,
        method: str,
        source: Floats,
        references: Sequence[Floats] = (),
        source_embedding: Floats | None = None,
        reference_embeddings: Floats | None = None,
        topk: int = 4,
    ) -> Floats:
        """Features to vocode, (T, D).

        Args:
            method: one of `METHODS`.
            source: (T, D).
            references: features (T_r, D) of each reference utterance.
            source_embedding: (V,), for the Eta methods.
            reference_embeddings: (R, V), one a reference, for `knn-eta`.
            topk: neighbours a frame.

        Raises:
            ConversionError: an unknown method, or one that needs an Eta model or embeddings.
        """
        if method not in METHODS:
            raise ConversionError(f"method {method!r} is none of {', '.join(METHODS)}")
        if method == "copy":
            return source
        if method == "knn":
            return self._match(source, np.concatenate(references), topk)
        if self.eta is None or source_embedding is None:
            raise ConversionError(f"{method} needs an Eta model and the source's embedding")
        eta_source = self.eta.remove_speaker(source, source_embedding)
        if method == "knn-eta-source":
            query = eta_source + self.eta.mean_component.astype(np.float32)
            return self._match(query, np.concatenate(references), topk)
        if reference_embeddings is None:
            raise ConversionError(f"{method} needs the references' embeddings")
        pool = [
            self.eta.remove_speaker(features, embedding)
            for features, embedding in zip(references, reference_embeddings, strict=True)
        ]
        # The mean of unit embeddings, at the length that single embeddings have.
        direction = unit_rows(reference_embeddings).mean(axis=0, keepdims=True)
        length = np.linalg.norm(reference_embeddings, axis=1).mean()
        target = self.eta.speaker_component(unit_rows(direction)[0] * length)
        return self._match(eta_source, np.concatenate(pool), topk) + target.astype(np.float32)

    def _match(self, query: Floats, pool: Floats, topk: int) -> Floats:
        device = next(self.ssl.parameters()).device
        frames, candidates = (torch.from_numpy(array).float().to(device) for array in (query, pool))
        return match(frames, candidates, topk=topk).cpu().numpy()

    @torch.inference_mode()
    def vocode(self, features: Floats, num_samples: int) -> Waveform:
        """Waveform (num_samples,) float32 of the features (T, D) of a source of that length.

        The last one or two steps of a source have no frame of their own, because a frame sees 400
        samples: there the last frame is held.
        """
        device = next(self.vocoder.parameters()).device
        missing = max(0, -(-num_samples // self.ssl.hop_length) - len(features))
        held = np.pad(features, ((0, missing), (0, 0)), mode="edge")
        batch = torch.from_numpy(held).float().to(device)[None]
        return np.asarray(self.vocoder(batch)[0, 0, :num_samples].cpu().numpy(), np.float32)

    def convert(
        self,
        source_wave: Waveform,
        reference_waves: Sequence[Waveform],
        topk: int = 4,
        method: str = "knn",
    ) -> Waveform:
        """Say the source (T,) in the voice of the references: (T,), all mono at 16 kHz."""
        features = [each.numpy() for each in self.ssl.encode([source_wave, *reference_waves])]
        embeddings = None
        if method in ETA_METHODS:
            if self.speaker_encoder is None:
                raise ConversionError(f"{method} needs a speaker encoder")
            embeddings = self.speaker_encoder.embed([source_wave, *reference_waves])
        converted = self.transform(
            method,
            features[0],
            features[1:],
            None if embeddings is None else embeddings[0],
            None if embeddings is None else embeddings[1:],
            topk,
        )
        return self.vocode(converted, len(source_wave))


def sample_pairs(manifest: pd.DataFrame, sources_per_speaker: int, seed: int) -> pd.DataFrame:
    """Draw source utterances and give each to every other speaker of the test split.

    Args:
        manifest: see `etaflow.manifest`.
        sources_per_speaker: utterances of each test speaker, fewer if there are fewer.
        seed: of the draw, which for a speaker does not depend on the other speakers.

    Returns:
        Columns `source_id`, `source_speaker`, `target_speaker`; sources in order of id.

    Raises:
        ConversionError: the test split has fewer than two speakers.
    """
    test = manifest[manifest["split"] == "test"]
    speakers = sorted(test["speaker_id"].unique())
    if len(speakers) < 2:
        raise ConversionError(
            f"the test split has {len(speakers)} speaker(s), conversion needs two: "
            "see `split` of the corpus in the config"
        )
    rows = []
    for speaker in speakers:
        ids = sorted(test.loc[test["speaker_id"] == speaker, "utterance_id"])
        generator = np.random.default_rng([seed, *speaker.encode()])
        drawn = generator.choice(ids, min(sources_per_speaker, len(ids)), replace=False)
        rows += [
            (str(source), speaker, target)
            for source in sorted(drawn)
            for target in speakers
            if target != speaker
        ]
    return pd.DataFrame(rows, columns=["source_id", "source_speaker", "target_speaker"])

"""Are two recordings of one speaker? An encoder, a threshold, and what both were chosen on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.bundles import VERIFIER
from etaflow.speaker import SpeakerEncoder, load_speaker_encoder
from etaflow.store import Embeddings
from etaflow.trials import COLUMNS
from etaflow.verification.calibration import Calibration, pair_quality
from etaflow.verification.scores import cosine_scores

FORMAT = "etaflow-verifier/1"
CONFIG, ENCODER = "verifier.json", "encoder"


class VerifierError(ValueError):
    """A folder that holds no verifier, or one that this version cannot read."""


@dataclass(frozen=True)
class Decision:
    """What a verifier says of two recordings.

    Attributes:
        score: a cosine, or a natural log-likelihood ratio.
        unit: which of them.
        threshold: in the same unit; a score at or above it is accepted.
        same_speaker: whether it is.
    """

    score: float
    unit: str
    threshold: float
    same_speaker: bool


class Verifier:
    """Scores two recordings as the trials of a run were scored, and decides."""

    def __init__(
        self,
        encoder: SpeakerEncoder,
        name: str,
        threshold: float,
        calibration: Calibration | None,
        max_seconds: float | None,
        trials: Mapping[str, Any],
    ) -> None:
        """Put a verifier together.

        Args:
            encoder: of the trials' embeddings.
            name: of the system.
            threshold: of the scores, after calibration.
            calibration: of cosines and quality to log-likelihood ratios, if any.
            max_seconds: what of a longer recording is heard, from its start; None: all.
            trials: what it was calibrated, or its threshold set, on: `run`, `name` of the list,
                `targets` and `nontargets`, `corpora`, and the `eer` (percent) on `eer_trials`;
                `weights`, see `etaflow.models.WEIGHTS`.
        """
        self.encoder, self.name = encoder, name
        self.threshold, self.calibration = threshold, calibration
        self.max_seconds, self.trials = max_seconds, trials

    @property
    def weights(self) -> str:
        """How far to trust it, see `etaflow.models.WEIGHTS`."""
        return str(self.trials["weights"])

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Verifier":
        """Load a folder of `verifier.json` and `encoder/`, or a bundle that has it as `verifier/`.

        Raises:
            VerifierError: the folder is none of them.
            ModelError: its encoder cannot be loaded.
        """
        own = Path(folder)
        if not (own / CONFIG).is_file() and (own / VERIFIER / CONFIG).is_file():
            own /= VERIFIER
        path = own / CONFIG
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise VerifierError(f"{path}: format {stored['format']!r} is not {FORMAT}")
            fields = stored["calibration"]
            calibration = None
            if fields is not None:
                calibration = Calibration(
                    tuple(fields["features"]),
                    tuple(fields["weights"]),
                    fields["bias"],
                    fields["fitted_on"],
                )
            encoder = load_speaker_encoder(own / ENCODER, device)
            return cls(
                encoder,
                stored["name"],
                float(stored["threshold"]),
                calibration,
                stored["max_seconds"],
                stored["trials"],
            )
        except FileNotFoundError as error:
            raise VerifierError(
                f"{folder} holds no {CONFIG}: it is no verifier, nor a bundle with one. A run "
                "whose config has `verification.verifier` makes one in results/RUN/verifier"
            ) from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise VerifierError(f"{path} is damaged ({error!r})") from error

    def score(self, one: Waveform, other: Waveform) -> Decision:
        """Compare two mono 16 kHz recordings (T,), of at least 0.1 s.

        Raises:
            ValueError: a recording is too short for the encoder, or its embedding is not finite
                or zero.
        """
        waveforms = [one, other]
        if self.max_seconds is not None:
            waveforms = [wave[: round(self.max_seconds * SAMPLE_RATE)] for wave in waveforms]
        names = ["enrolment", "test"]
        vectors = np.concatenate([self.encoder.embed([wave]) for wave in waveforms])
        info = self.encoder.info
        embeddings = Embeddings(names, names, vectors, info.name, info.weights)
        trial = pd.DataFrame([[*names, 1]], columns=COLUMNS)  # its label is not looked at
        scores, unit = cosine_scores(trial, embeddings), "cosine"
        if self.calibration is not None:
            measured = {"utterance_id": names, "num_samples": [len(wave) for wave in waveforms]}
            recordings = pd.DataFrame(measured).assign(sample_rate=SAMPLE_RATE)
            # `duration_min` is made of the measure `duration`.
            measures = [feature.rpartition("_")[0] for feature in self.calibration.features[1:]]
            quality = pair_quality(list(dict.fromkeys(measures)), trial, embeddings, recordings)
            scores, unit = self.calibration.llrs(scores, quality), "log-likelihood ratio"
        score = float(scores[0])
        return Decision(score, unit, self.threshold, score >= self.threshold)

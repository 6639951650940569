"""What Eta-WavLM does to one recording: its features split in two, measures and a figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from etaflow.atomic import atomic_directory, write_json
from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.converter import VoiceConverter
from etaflow.figures.base import COLOURS, labelled, save_figure
from etaflow.store import Floats

MAX_POINTS = 1500  # of a curve; of a longer recording, means of stretches are drawn
MODEL_FACTS = ("model", "revision", "layer", "normalize", "encoder")
# What equation 5 fixes, whatever the model and the recording: it takes one vector off all frames.
BY_CONSTRUCTION = {
    "component_norm_std": "0, because the component is one vector for all frames",
    "eta_variance": "that of the original, because taking off a constant changes no variance",
    "variance_ratio": "1, for the same reason: it does not say how much was kept",
}


class AnalysisError(ValueError):
    """An analysis that cannot be made or written."""


def check_output(directory: str | Path) -> None:
    """Raise `AnalysisError` if there is something already: an analysis writes over nothing."""
    if Path(directory).exists():
        raise AnalysisError(f"{directory} exists: name a folder that does not")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _explained(left: float, whole: float) -> float | None:
    return 1 - left / whole if whole else None


def _cosine(one: Floats, other: Floats) -> float | None:
    return _ratio(float(one @ other), float(np.linalg.norm(one) * np.linalg.norm(other)))


def _squares(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())


@dataclass(frozen=True)
class Analysis:
    """The features of a recording, and the two parts that they are the sum of."""

    original: Floats  # (T, Q), as the SSL encoder gives them
    eta: Floats  # (T, Q), without the component
    component: Floats  # (Q,), d^T A + b
    average_component: Floats  # (Q,), the same averaged over the frames of the fit
    embedding: Floats  # (V,), of the whole recording, as the speaker encoder gives it
    times: Floats  # (T,), the middle of what each frame sees, s
    seconds: float  # of the recording
    model: dict[str, Any]  # what the features and the component were made with
    r2_per_dimension: Floats  # (Q,), of the fit

    def measures(self) -> dict[str, Any]:
        """What `analysis.json` holds.

        Below, s are the frames, m is their mean, c the component and a the average component. Norms
        are Euclidean, in the units of the features. Means and standard deviations are over frames.
        A ratio whose denominator is 0 is None.

        What it is: `duration_seconds`, `frames`, `feature_dimension`, `embedding_dimension`,
        `model` (with the worst `weights` in the path and `fit_r2`, the share of the variance of all
        frames of the fit that the components explain).

        How large the parts are: `original_norm_mean` and `_std`, `eta_norm_mean` and `_std`,
        `component_norm_mean`, `speaker_contribution_ratio` (the component's norm by the original's
        mean norm), `cosine_original_eta_mean` and `_std`, `original_variance` (over time, averaged
        over dimensions). c contains b, which all speakers share: these tell how far the frames
        move, not how much of the speaker there was.

        What says nothing: `component_norm_std`, `eta_variance` and `variance_ratio`; see
        `by_construction`.

        How well c fits this recording: `cosine_component_mean_frame`, of c and m;
        `mean_frame_explained`, 1 - |m - c|^2 / |m|^2. The same beyond what all speakers share:
        `speaker_cosine`, of c - a and m - a; `speaker_explained`, 1 - |m - c|^2 / |m - a|^2, which
        is below 0 where the average speaker would have been the better guess; and over single
        frames `r2`, 1 - sum |s - c|^2 / sum |s - a|^2, to compare with `fit_r2`.
        """
        mean = self.original.mean(axis=0, dtype=np.float64)
        left, beyond = _squares(mean - self.component), mean - self.average_component
        original_norm, eta_norm, cosine = self.curves()
        component_norm = float(np.linalg.norm(self.component))
        original_variance, eta_variance = (
            float(part.var(axis=0, dtype=np.float64).mean()) for part in (self.original, self.eta)
        )
        return {
            "duration_seconds": self.seconds,
            "frames": len(self.original),
            "feature_dimension": self.original.shape[1],
            "embedding_dimension": len(self.embedding),
            "original_norm_mean": float(original_norm.mean()),
            "original_norm_std": float(original_norm.std()),
            "eta_norm_mean": float(eta_norm.mean()),
            "eta_norm_std": float(eta_norm.std()),
            "component_norm_mean": component_norm,
            "component_norm_std": 0.0,
            "speaker_contribution_ratio": _ratio(component_norm, float(original_norm.mean())),
            "cosine_original_eta_mean": float(cosine.mean()),
            "cosine_original_eta_std": float(cosine.std()),
            "original_variance": original_variance,
            "eta_variance": eta_variance,
            "variance_ratio": _ratio(eta_variance, original_variance),
            "cosine_component_mean_frame": _cosine(self.component, mean),
            "mean_frame_explained": _explained(left, _squares(mean)),
            "speaker_cosine": _cosine(self.component - self.average_component, beyond),
            "speaker_explained": _explained(left, _squares(beyond)),
            "r2": _explained(_squares(self.eta), _squares(self.original - self.average_component)),
            "by_construction": BY_CONSTRUCTION,
            "model": self.model,
        }

    def curves(self) -> tuple[Floats, Floats, Floats]:
        """Of each frame, (T,): the norm of the original, that of eta, the cosine of the two."""
        original, eta = (np.linalg.norm(part, axis=1) for part in (self.original, self.eta))
        return original, eta, np.einsum("tq,tq->t", self.original, self.eta) / (original * eta)

    def plot(self) -> Figure:
        """Norms and cosine over time, and how much of each dimension the fit explained."""
        stretch = -(-len(self.times) // MAX_POINTS)
        starts = np.arange(0, len(self.times), stretch)
        counts = np.diff(starts, append=len(self.times))
        times, original, eta, cosine = (
            np.add.reduceat(values, starts) / counts for values in (self.times, *self.curves())
        )
        figure, (norms, angles, fit) = plt.subplots(3, 1, figsize=(7.5, 8.5), layout="constrained")
        for panel in (norms, angles, fit):
            panel.spines[["top", "right"]].set_visible(False)
        name = f"{self.model['model']}, layer {self.model['layer']}"
        figure.suptitle(labelled(name, self.model["weights"]))
        marker = "o" if len(times) < 30 else None
        norms.plot(times, original, color=COLOURS[0], marker=marker, ms=3, label="original")
        norms.plot(times, eta, color=COLOURS[1], marker=marker, ms=3, label="eta")
        norms.axhline(
            float(np.linalg.norm(self.component)),
            color=COLOURS[2],
            ls="--",
            label="speaker component, the same for all frames",
        )
        norms.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        norms.set(ylabel="norm of a frame", ylim=(0, None), xlim=(0, self.seconds))
        angles.plot(times, cosine, color=COLOURS[0], marker=marker, ms=3)
        note = f", means of {stretch} frames" if stretch > 1 else ""
        angles.set(
            ylabel="cosine of original and eta",
            xlabel=f"time (s){note}",
            xlim=(0, self.seconds),
        )
        fit.hist(100 * self.r2_per_dimension, bins=40, color=COLOURS[0])
        fit.axvline(
            100 * self.model["fit_r2"],
            color=COLOURS[6],
            ls="--",
            label=f"all dimensions: {100 * self.model['fit_r2']:.1f} %",
        )
        fit.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
        fit.set(xlabel="variance that the fit explained on its corpus (%)", ylabel="dimensions")
        return figure

    def save(self, directory: str | Path) -> None:
        """Write the arrays (float32), `analysis.json` and `analysis.svg`, all or nothing.

        Raises:
            AnalysisError: the folder exists.
        """
        check_output(directory)
        arrays = {
            "original_features": self.original,
            "eta_features": self.eta,
            "speaker_component": self.component,
            "speaker_embedding": self.embedding,
        }
        with atomic_directory(directory) as part:
            for name, values in arrays.items():
                np.save(part / f"{name}.npy", values.astype(np.float32), allow_pickle=False)
            write_json(part / "analysis.json", self.measures())
            save_figure(self.plot(), part / "analysis.svg")


def analyze(waveform: Waveform, converter: VoiceConverter) -> Analysis:
    """Split the features of a recording (T,), mono at 16 kHz, into eta and speaker component.

    All of it is embedded and all of it encoded, however long it is.

    Raises:
        AnalysisError: the converter has no Eta model or no speaker encoder.
        ValueError: the recording is too short for a frame or an embedding, or too quiet for one.
    """
    eta, encoder, ssl = converter.eta, converter.speaker_encoder, converter.ssl
    if eta is None or encoder is None:
        missing = "Eta model" if eta is None else "speaker encoder"
        raise AnalysisError(
            f"an analysis needs an Eta model and a speaker encoder; this bundle has no {missing}"
        )
    features = ssl.encode([waveform])[0].numpy()
    embedding = encoder.embed([waveform])[0]
    return Analysis(
        features,
        eta.remove_speaker(features, embedding),
        eta.speaker_component(embedding),
        eta.mean_component,
        embedding,
        (np.arange(len(features)) * ssl.hop_length + ssl.field / 2) / SAMPLE_RATE,
        len(waveform) / SAMPLE_RATE,
        {
            **{key: eta.config[key] for key in MODEL_FACTS},
            "pca_components": len(eta.pca.components) if eta.pca else None,
            "weights": converter.weights,
            "fit_r2": eta.config["r2"],
        },
        np.asarray(eta.config["r2_per_dimension"]),
    )

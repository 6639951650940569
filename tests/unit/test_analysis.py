import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from etaflow import VoiceConverter
from etaflow.analysis import Analysis, AnalysisError, analyze
from etaflow.audio import read_audio
from etaflow.cli import app

FILES = {
    *("original_features.npy", "eta_features.npy", "speaker_component.npy"),
    *("speaker_embedding.npy", "analysis.json", "analysis.svg"),
}
MODEL = {
    "model": "m",
    "revision": "r",
    "layer": 1,
    "normalize": True,
    "encoder": "e",
    "pca_components": None,
    "weights": "trained",
    "fit_r2": 0.25,
}


def split(original: Any, component: Any, average: Any, **model: Any) -> Analysis:
    frames, vector = np.asarray(original, np.float32), np.asarray(component, float)
    return Analysis(
        frames,
        (frames - vector).astype(np.float32),
        vector,
        np.asarray(average, float),
        np.ones(3, np.float32),
        np.arange(len(frames)) * 0.02 + 0.0125,
        len(frames) * 0.02,
        MODEL | model,
        np.full(frames.shape[1], 0.25),
    )


def test_measures_of_frames_whose_answers_are_known() -> None:
    # Frames (4, 0) and (4, 8): mean (4, 4). Eta with (4, 1): (0, -1) and (0, 7). Average (0, 4).
    measures = split([[4, 0], [4, 8]], [4, 1], [0, 4]).measures()
    expected = {
        "duration_seconds": 0.04,
        "frames": 2,
        "feature_dimension": 2,
        "embedding_dimension": 3,
        "original_norm_mean": (4 + np.sqrt(80)) / 2,
        "original_norm_std": (np.sqrt(80) - 4) / 2,
        "eta_norm_mean": 4,
        "eta_norm_std": 3,
        "component_norm_mean": np.sqrt(17),
        "component_norm_std": 0,
        "speaker_contribution_ratio": np.sqrt(17) / ((4 + np.sqrt(80)) / 2),
        "cosine_original_eta_mean": 4 / np.sqrt(80),
        "cosine_original_eta_std": 4 / np.sqrt(80),
        "original_variance": 8,  # 0 in one dimension, 16 in the other
        "eta_variance": 8,
        "variance_ratio": 1,
        "cosine_component_mean_frame": 20 / np.sqrt(17 * 32),
        "mean_frame_explained": 1 - 9 / 32,
        "speaker_cosine": 16 / (np.sqrt(16 + 9) * 4),  # of (4, -3) and (4, 0)
        "speaker_explained": 1 - 9 / 16,
        "r2": 1 - 50 / 64,  # (0, -1), (0, 7) against (4, -4), (4, 4)
    }
    assert measures.pop("model") == MODEL
    assert measures.pop("by_construction").keys() <= measures.keys()
    assert measures == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_speaker_worse_than_the_average_explains_less_than_nothing() -> None:
    measures = split([[4, 0], [4, 8]], [9, 4], [3, 4]).measures()
    assert measures["speaker_explained"] == pytest.approx(1 - 25 / 1)
    assert measures["r2"] == pytest.approx(1 - 82 / 34)


def test_what_is_undefined_is_null() -> None:
    measures = split([[3, 4]], [1, 1], [3, 4]).measures()
    assert measures["variance_ratio"] is None
    assert measures["speaker_cosine"] is None
    assert measures["speaker_explained"] is None
    assert measures["mean_frame_explained"] == pytest.approx(1 - 13 / 25)


def drawn(analysis: Analysis) -> list[Any]:
    return analysis.plot().axes


def test_the_figure_shows_every_frame_and_the_constant_component() -> None:
    norms, angles, fit = drawn(split([[4, 0], [4, 8]], [4, 1], [0, 4]))
    original, eta, component = norms.get_lines()
    np.testing.assert_allclose(original.get_xydata(), [[0.0125, 4], [0.0325, np.sqrt(80)]])
    np.testing.assert_allclose(eta.get_ydata(), [1, 7])
    assert set(component.get_ydata()) == {np.sqrt(17)}
    np.testing.assert_allclose(angles.get_lines()[0].get_ydata(), [0, 8 / np.sqrt(80)])
    assert sum(patch.get_height() for patch in fit.patches) == 2  # dimensions
    assert norms.figure.get_suptitle() == "m, layer 1"
    untrained = split([[4, 0], [4, 8]], [4, 1], [0, 4], weights="untrained")
    assert untrained.plot().get_suptitle() == "m, layer 1 (untrained)"


def test_a_long_recording_is_drawn_as_means_of_stretches() -> None:
    frames = np.column_stack([np.arange(1, 4002), np.zeros(4001)])
    norms, angles, _ = drawn(split(frames, [0, 1], [0, 0]))
    points = norms.get_lines()[0].get_xydata()
    assert len(points) == 1334  # of 3 frames each, the last of 2
    np.testing.assert_allclose(points[[0, -1]], [[0.0325, 2], [0.02 * 3999.5 + 0.0125, 4000.5]])
    assert angles.get_xlabel() == "time (s), means of 3 frames"


@pytest.fixture(scope="module")
def converter(bundle: Path) -> VoiceConverter:
    return VoiceConverter.from_pretrained(bundle)


def speech(seconds: float, rate: int = 16_000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    return (0.1 * buzz * (1 + np.sin(7 * time))).astype(np.float32)


def test_all_of_a_recording_is_split(converter: VoiceConverter) -> None:
    waveform = speech(9.5)
    analysis = analyze(waveform, converter)
    assert converter.speaker_encoder
    assert converter.eta
    whole = converter.ssl.encode([waveform])[0].numpy()
    embedding = converter.speaker_encoder.embed([waveform])[0]
    np.testing.assert_array_equal(analysis.original, whole)
    np.testing.assert_array_equal(analysis.embedding, embedding)
    # Equation 5 in full: PCA, then d^T A + b.
    pca = converter.eta.pca
    assert pca
    component = (embedding - pca.mean) @ pca.components.T @ converter.eta.coefficients
    component += converter.eta.bias
    np.testing.assert_allclose(analysis.component, component)
    np.testing.assert_allclose(analysis.eta + component, whole, atol=1e-5)
    assert analysis.seconds == 9.5
    assert analysis.times[[0, 1]] == pytest.approx([200 / 16_000, 520 / 16_000])
    six_seconds = converter.speaker_encoder.embed([waveform[:96_000]])[0]
    assert not np.allclose(embedding, six_seconds, atol=1e-4)


def test_a_converter_without_what_it_needs_is_refused(converter: VoiceConverter) -> None:
    parts = vars(converter) | {"speaker_encoder": None}
    with pytest.raises(AnalysisError, match="needs an Eta model and a speaker encoder"):
        analyze(speech(1), SimpleNamespace(**parts))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="300 samples is too short"):
        analyze(speech(1)[:300], converter)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


def test_the_command_writes_arrays_measures_and_a_figure(
    bundle: Path, converter: VoiceConverter, tmp_path: Path
) -> None:
    # Stereo at another rate.
    tone = speech(1.3, 22_050)
    soundfile.write(tmp_path / "in.wav", np.column_stack([tone, 0.5 * tone]), 22_050)
    done = run(tmp_path / "in.wav", "--bundle", bundle, "-o", tmp_path / "new" / "out")
    assert done.exit_code == 0, done.output
    assert "untrained weights" in done.output
    out = tmp_path / "new" / "out"
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in out.parent.iterdir()} == {"out"}
    waveform = read_audio(tmp_path / "in.wav")
    assert len(waveform) == 20_800
    expected = analyze(waveform, converter)
    for name, values in {
        "original_features": expected.original,
        "eta_features": expected.eta,
        "speaker_component": expected.component,
        "speaker_embedding": expected.embedding,
    }.items():
        stored = np.load(out / f"{name}.npy", allow_pickle=False)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, values.astype(np.float32))
    assert stored.shape == (256,)
    measures = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert measures == json.loads(json.dumps(expected.measures()))
    assert measures["duration_seconds"] == 1.3
    assert measures["frames"] == (20_800 - 400) // 320 + 1
    assert measures["variance_ratio"] == pytest.approx(1, abs=1e-5)
    assert measures["model"] == {
        "model": "wavlm-tiny",
        "revision": "seed-0",
        "layer": 2,
        "normalize": False,
        "encoder": "resemblyzer",
        "pca_components": 4,
        "weights": "untrained",
        "fit_r2": 0.125,
    }
    assert ElementTree.parse(out / "analysis.svg").getroot().tag.endswith("svg")


def test_nothing_is_written_over(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", speech(0.5), 16_000)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run(tmp_path / "in.wav", "--bundle", bundle, "-o", tmp_path / "mine")
    assert done.exit_code == 1
    assert done.output == f"error: {tmp_path / 'mine'} exists: name a folder that does not\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_analysis_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = split([[4, 0], [4, 8]], [4, 1], [0, 4])
    monkeypatch.setattr(Analysis, "plot", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        analysis.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(16_000), "silent: the mono signal never exceeds -80 dBFS"),
        (speech(0.09), "shorter than 0.1 s (0.090 s)"),
        (b"this is not audio", "unreadable: Format not recognised."),
    ],
)
def test_a_bad_recording_is_named_with_its_reason(
    bundle: Path, tmp_path: Path, samples: Any, reason: str
) -> None:
    path = tmp_path / "in.wav"
    if isinstance(samples, bytes):
        path.write_bytes(samples)
    else:
        soundfile.write(path, samples, 16_000)
    done = run(path, "--bundle", bundle, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert done.output == f"error: {path}: {reason}\n"
    assert not (tmp_path / "out").exists()

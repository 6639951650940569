"""The real workflow, from nothing to a report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from etaflow import VoiceConverter
from etaflow.audio import read_audio
from etaflow.cli import app
from etaflow.converter import ConversionError
from etaflow.manifest import read_manifest, read_table
from etaflow.store import Embeddings, FeatureStore
from tests.workflow_tools import planned, small_config, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    snakemake(folder, small_config())
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> Path:
    return run / "results" / "small"


def test_nothing_is_left_to_do(run: Path) -> None:
    assert planned(run, small_config()) == {}


def test_the_manifest_has_every_utterance_and_disjoint_speakers(results: Path, run: Path) -> None:
    table = read_manifest(results / "manifests/mini.tsv")
    assert len(table) == 36
    by_split = {name: set(rows["speaker_id"]) for name, rows in table.groupby("split")}
    assert by_split["train"].isdisjoint(by_split["test"])
    assert {len(speakers) for speakers in by_split.values()} == {2, 4}
    parts = [read_manifest(results / f"manifests/mini/{shard}.tsv") for shard in ("0000", "0001")]
    assert sorted(set(parts[0]["speaker_id"]) & set(parts[1]["speaker_id"])) == []
    assert sum(len(part) for part in parts) == 36


def test_features_are_those_of_the_audio(results: Path, run: Path) -> None:
    from etaflow.ssl import SSLEncoder

    store = FeatureStore(sorted((results / "features/mini/wavlm-tiny-l3").glob("*.h5")))
    assert len(store) == 36
    encoder = SSLEncoder.from_pretrained(run / "resources/models/wavlm-tiny", 3)
    row = read_manifest(results / "manifests/mini.tsv").iloc[7]
    exact = encoder.encode([read_audio(run / row["path"])])[0].numpy()
    np.testing.assert_allclose(store[row["utterance_id"]], exact, atol=4e-3, rtol=2e-3)
    u = store.utterance_ids.index(row["utterance_id"])
    np.testing.assert_allclose(store.frame_sum[u], exact.sum(axis=0), rtol=1e-3, atol=1e-3)


def test_embeddings_are_those_of_the_audio_in_order_of_the_manifest(
    results: Path, run: Path
) -> None:
    from etaflow.speaker import load_speaker_encoder

    table = read_manifest(results / "manifests/mini.tsv")
    embeddings = Embeddings.read(results / "embeddings/mini/resemblyzer.h5")
    assert embeddings.utterance_ids == list(table["utterance_id"])
    assert embeddings.speaker_ids == list(table["speaker_id"])
    assert embeddings.weights == "published"
    encoder = load_speaker_encoder(run / "resources/models/resemblyzer")
    alone = encoder.embed([read_audio(run / table["path"].iloc[7])])
    np.testing.assert_allclose(embeddings.vectors[[7]], alone, atol=1e-5)


def test_the_eta_fit_leaves_no_linear_trace_of_the_speaker(results: Path) -> None:
    from etaflow.eta import EtaModel

    table = read_manifest(results / "manifests/mini.tsv")
    train = list(table.loc[table["split"] == "train", "utterance_id"])
    store = FeatureStore(sorted((results / "features/mini/wavlm-tiny-l3").glob("*.h5")))
    model = EtaModel.from_pretrained(results / "eta/mini")
    vectors = Embeddings.read(results / "embeddings/mini/resemblyzer.h5").rows(train)
    assert model.pca is not None
    reduced = model.pca.transform(vectors)
    frames = [store[name] for name in train]
    # The residual of a least squares is orthogonal to its regressors, over all frames.
    residual = [
        model.remove_speaker(each, vector).sum(axis=0)
        for each, vector in zip(frames, vectors, strict=True)
    ]
    scale = np.abs(np.concatenate(frames)).sum(axis=0).max() * np.abs(reduced).max()
    assert np.abs(reduced.T @ np.stack(residual)).max() < 1e-3 * scale
    config = json.loads((results / "eta/mini/config.json").read_text())
    assert (config["utterances"], config["weights"]) == (24, "untrained")
    assert 0 < config["r2"] < 1


def test_probes_are_of_speakers_that_the_fit_never_saw(results: Path) -> None:
    table = read_table(results / "eta/mini/probe.tsv", ("accuracy", "low", "high", "n"))
    kinds = [("speaker", "utterance"), ("speaker", "frame"), ("content", "phone")]
    expected = [(*kind, side) for kind in [*kinds, ("content", "word")] for side in ("raw", "eta")]
    columns = ["probe", "unit", "features"]
    assert list(table[columns].itertuples(index=False, name=None)) == expected
    assert set(table["speakers_in_fit"]) == {"0"}
    assert set(table["weights"]) == {"untrained"}
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    assert table["n"].tolist()[:4] == [12, 12, 240, 240]
    aligned = read_table(results / "alignments/mini.tsv")
    assert aligned["utterance_id"].nunique() == 12


def test_metrics_are_complete_labelled_and_within_range(results: Path) -> None:
    table = read_table(results / "conversion/metrics.tsv", ("value", "low", "high", "n"))
    assert list(table.columns) == ["system", "metric", "value", "low", "high", "n", "weights"]
    assert set(table["system"]) == {
        "original",
        "copy-synthesis",
        "knnvc",
        "knnvc-eta-source",
        "knnvc-eta",
        "linearvc",
        "mklvc",
        "knnvc-5s",
    }
    names = {system: set(rows["metric"]) for system, rows in table.groupby("system")}
    assert {"wer", "cer", "dnsmos", "similarity_target"} <= names["original"]
    assert {"si_snr", "mel_distance"} <= names["copy-synthesis"]
    for system in ("knnvc", "knnvc-eta-source", "knnvc-eta", "linearvc", "mklvc"):
        assert {"wer", "eer_per_target", "eer_pooled", "similarity_source"} <= names[system]
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    weights = table.set_index("system")["weights"]
    assert set(weights["original"]) == {"published"}
    assert set(weights["knnvc"]) == {"untrained"}
    # The recogniser knows the grammar: recordings are understood far better than noise.
    wer = table[table["metric"] == "wer"].set_index("system")["value"]
    assert wer["original"] < 40


def test_conversions_last_as_long_as_their_sources(results: Path, run: Path) -> None:
    table = read_table(results / "conversion/knnvc/converted.tsv")
    manifest = read_manifest(results / "manifests/mini.tsv").set_index("utterance_id")
    assert len(table) == 4
    for row in table.itertuples():
        assert row.source_speaker != row.target_speaker
        waveform = read_audio(results / "conversion/knnvc" / row.path)
        assert len(waveform) == manifest.loc[row.source_id, "num_samples"]


def test_the_report_holds_what_it_promises(run: Path) -> None:
    snakemake(run, small_config(), "--report", "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    for item in (
        "scree.svg",
        "umap-mini.svg",
        "training.svg",
        "det.svg",
        "references.svg",
        "metrics.html",
        "listening.html",
    ):
        assert item in page
    listening = (run / "results/small/report/listening.html").read_text(encoding="utf-8")
    assert listening.count("<audio") == 2 * 8
    assert "untrained weights" in (run / "results/small/report/metrics.html").read_text("utf-8")


def test_a_bundle_converts_as_the_workflow_does(results: Path, run: Path) -> None:
    row = read_table(results / "conversion/knnvc/converted.tsv").iloc[0]
    manifest = read_manifest(results / "manifests/mini.tsv")
    target = manifest[
        (manifest["speaker_id"] == row["target_speaker"]) & (manifest["split"] == "test")
    ].sort_values("utterance_id")
    source = manifest.set_index("utterance_id").loc[row["source_id"], "path"]
    converter = VoiceConverter.from_pretrained(results / "bundle")
    waveform = converter.convert(
        read_audio(run / source), [read_audio(run / path) for path in target["path"]]
    )
    stored = read_audio(results / "conversion/knnvc" / row["path"])
    assert len(waveform) == len(stored)
    # The workflow reads features stored as float16: a neighbour or two may change places.
    assert np.corrcoef(waveform, stored)[0, 1] > 0.99
    for method in ("knn-eta-source", "knn-eta"):
        other = converter.convert(
            read_audio(run / source), [read_audio(run / target["path"].iloc[0])], method=method
        )
        assert len(other) == len(stored)


def test_the_command_line_converts(results: Path, run: Path, tmp_path: Path) -> None:
    manifest = read_manifest(results / "manifests/mini.tsv")
    source, reference = manifest.iloc[0], manifest.iloc[-1]
    done = CliRunner().invoke(
        app,
        [
            "convert",
            str(run / source["path"]),
            str(run / reference["path"]),
            *("-o", str(tmp_path / "new" / "out.flac"), "--bundle", str(results / "bundle")),
            *("--method", "knn-eta"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "untrained weights; expect noise" in done.output
    assert len(read_audio(tmp_path / "new" / "out.flac")) == source["num_samples"]
    (tmp_path / "bundle").mkdir()
    shutil.copytree(results / "bundle", tmp_path / "bundle", dirs_exist_ok=True)
    (tmp_path / "bundle/eta/eta.safetensors").write_bytes(b"cut short")
    with pytest.raises(ConversionError, match="damaged bundle"):
        VoiceConverter.from_pretrained(tmp_path / "bundle")


def test_the_command_line_analyses(results: Path, run: Path, tmp_path: Path) -> None:
    row = read_manifest(results / "manifests/mini.tsv").iloc[0]
    recording, out = run / row["path"], tmp_path / "out"
    arguments = [str(recording), "--bundle", str(results / "bundle"), "-o", str(out)]
    done = CliRunner().invoke(app, ["analyze", *arguments])
    assert done.exit_code == 0, done.output
    measures = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    fitted = json.loads((results / "eta/mini/config.json").read_text(encoding="utf-8"))
    assert measures["model"]["fit_r2"] == fitted["r2"]
    assert measures["model"]["pca_components"] == 4
    store = FeatureStore(sorted((results / "features/mini/wavlm-tiny-l3").glob("*.h5")))
    frames = store[row["utterance_id"]]
    np.testing.assert_allclose(np.load(out / "original_features.npy"), frames, atol=4e-3)


def test_the_card_says_what_the_run_was(results: Path) -> None:
    card = ModelCard.load(results / "bundle/README.md")
    fitted = json.loads((results / "eta/mini/config.json").read_text(encoding="utf-8"))
    assert "untrained" in card.data.tags
    assert f"{fitted['frames']} frames" in card.text
    assert "Seeds: conversion 0, corpus mini 0, vocoder 0." in " ".join(card.text.split())
    entries = json.loads(card.text.split("```json\n")[1].split("```")[0])
    config = small_config()
    assert entries == {
        "eta": config["eta"]["mini"],
        "vocoder": config["vocoder"]["hifigan-tiny"],
    }

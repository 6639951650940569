"""A wrong config is named, key by key, before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import (
    ROOT,
    changed,
    conversion_config,
    load_config,
    planned,
    snakemake,
    untrained_config,
)

ISTFT = {
    **{"kind": "istft", "hidden_dim": 8, "intermediate_dim": 8, "blocks": 2},
    **{"kernel": 7, "n_fft": 320, "upsample": 2},
}
HARMONIC = {
    **{"kind": "harmonic", "hidden_dim": 8, "intermediate_dim": 8, "blocks": 2},
    **{"kernel": 7, "bands": 20, "n_fft": 512},
}
CASES: list[tuple[str, Any, str]] = [
    ("eta.mini.layer", "three", "eta.mini.layer = 'three': 'three' is not of type 'integer'"),
    ("eta.mini.layer", 0, "eta.mini.layer = 0: 0 is less than the minimum of 1"),
    ("eta.mini.ridge", ..., "eta.mini: 'ridge' is a required property"),
    ("ssl.wavlm-tiny.dtype", "int8", "ssl.wavlm-tiny.dtype = 'int8': 'int8' is not one of"),
    (
        "eta.mini.lyer",
        3,
        "'lyer' was unexpected); allowed are: corpus, encoder, frames, layer",
    ),
    (
        "corpora.mini.kind",
        "minni",
        "corpora.mini.kind = 'minni': allowed are mini, espeak, folder, librispeech,",
    ),
    ("corpora.mini.speakers", 99, "corpora.mini.speakers = 99: 99 is greater than the maximum"),
    ("models.wavlm-tiny.seed", ..., "models.wavlm-tiny: 'seed' is a required property"),
    ("ssl.wavlm-tiny.model", "wavlm", "not in `models`, which has resemblyzer, wavlm-tiny"),
    ("run", "..", "run = '..': '..' does not match"),
    ("run", 2024, "run = 2024: must be text; put it in quotes"),
    ("conversion.asr.grammar", "mni", "conversion.asr.grammar = 'mni': 'mni' is not one of"),
    ("corpora", {"mi.ni": {}}, "'mi.ni' does not match"),
    (
        "conversion.judge",
        "wavlm-tiny",
        "architecture wavlm-tiny; allowed: ecapa, etaflow-encoder, resemblyzer, unispeech, wavlm",
    ),
    ("eta.mini.layer", 2, "conversion.eta = 'mini': layer is 2, that of the vocoder"),
    ("corpora.mini.split.test_fraction", 0, "test_fraction = 0: nothing to convert"),
    (
        "vocoder.hifigan-tiny.generator.upsample_factors",
        [10, 8, 2],
        "upsample_factors = [10, 8, 2]: their product is 160, not 320",
    ),
    (
        "vocoder.hifigan-tiny.generator.sample_rate",
        24000,
        "their product is 320, not 480, the samples of a frame of 20 ms at 24000 Hz",
    ),
    (
        "vocoder.hifigan-tiny.generator.sample_rate",
        32000,
        "generator.sample_rate = 32000: 32000 is",
    ),
    ("vocoder.hifigan-tiny.generator.kind", "vocos", "kind = 'vocos': 'vocos' is not one of"),
    ("vocoder.hifigan-tiny.generator", {"kind": "istft"}, "'n_fft' is a required property"),
    (
        "vocoder.hifigan-tiny.generator",
        ISTFT | {"n_fft": 318},
        "generator.n_fft = 318: less than 320, two hops of the STFT with upsample = 2 at 16000 Hz",
    ),
    (
        "vocoder.hifigan-tiny.generator",
        ISTFT | {"upsample": 3},
        "generator.upsample = 3: it does not divide 320, the samples of a frame of 20 ms at 16000",
    ),
    ("vocoder.hifigan-tiny.generator", ISTFT | {"kernel": 4}, "generator.kernel = 4: 4 is not one"),
    ("vocoder.hifigan-tiny.generator", {"kind": "harmonic"}, "'n_fft' is a required property"),
    (
        "vocoder.hifigan-tiny.generator",
        HARMONIC | {"n_fft": 100},
        "generator.n_fft = 100: less than 160, two hops of the STFT with upsample = 4 at 16000 Hz",
    ),
    (
        "vocoder.hifigan-tiny.mel_windows",
        [4],
        "mel_windows.0 = 4: 4 is less than the minimum of 8",
    ),
    ("vocoder.hifigan-tiny.generator", ..., "hifigan-tiny: needs either `generator`, the sizes"),
    ("vocoder.hifigan-tiny.start", "resemblyzer", "hifigan-tiny: needs either `generator`, the"),
    ("vocoder.hifigan-tiny.start", "other", "hifigan-tiny.start = 'other': not in `models`"),
    (
        "vocoder.hifigan-tiny.precision",
        True,
        "hifigan-tiny.precision = True: True is not one of ['float32', 'bfloat16', 'float16']",
    ),
    ("vocoder.hifigan-tiny.precision", "fp16", "precision = 'fp16': 'fp16' is not one of"),
    ("vocoder.hifigan-tiny.ema", 1, "ema = 1: 1 is greater than or equal to the maximum of 1"),
    ("vocoder.hifigan-tiny.clip_norm", 0, "clip_norm = 0: 0 is less than or equal to the minimum"),
    (
        "vocoder.hifigan-tiny.checkpoints.keep",
        0,
        "keep = 0: 0 is less than the minimum of 1",
    ),
    ("vocoder.hifigan-tiny.prematched", True, "'prematched' was unexpected); allowed are: advers"),
    ("vocoder.hifigan-tiny.features", "eta", "vocoder.hifigan-tiny: `features: eta` goes with"),
    ("vocoder.hifigan-tiny.eta", "mini", "goes with `eta: NAME`, the entry of `eta` that takes"),
    ("vocoder.hifigan-tiny.eta", "other", "vocoder.hifigan-tiny.eta = 'other': not in `eta`"),
    ("tracker", "mlflow", "tracker = 'mlflow': 'mlflow' is not one of"),
    ("sweep.eta", "other", "sweep.eta = 'other': not in `eta`, which has mini"),
    ("sweep.layer", [0], "sweep.layer.0 = 0: 0 is less than the minimum of 1"),
    ("conversion.eta", "other", "conversion.eta = 'other': not in `eta`, which has mini"),
    (
        "conversion.pairs",
        {"table": "pairs.tsv"},
        "conversion.pairs.table = 'pairs.tsv': there is no such file",
    ),
    ("probe.corpus", "other", "probe.corpus = 'other': not in `corpora`, which has mini"),
    ("probe.folds", 1, "probe.folds = 1: 1 is less than the minimum of 2"),
    ("probe.content", "whisper", "probe.content = 'whisper': 'whisper' is not one of"),
    ("corpora.mini.split.test_fraction", 0, "probe.corpus = 'mini': has no test utterances"),
]


@pytest.mark.parametrize(("key", "value", "message"), CASES)
def test_a_wrong_key_is_named_with_its_value(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    output = snakemake(tmp_path, changed(conversion_config(), key, value), "--dry-run", ok=False)
    assert message in output
    assert not (tmp_path / "results").exists()


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    config = changed(changed(conversion_config(), "eta.mini.layer", 0), "prematch.topk", 0)
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "eta.mini.layer = 0" in output
    assert "prematch.topk = 0" in output


def test_a_root_that_needs_a_folder_says_how_to_give_it(tmp_path: Path) -> None:
    output = snakemake(tmp_path, load_config("folder"), "--dry-run", ok=False)
    assert "needs a value: --config speech_dir=FOLDER" in output
    config = load_config("folder") | {"speech_dir": "/nowhere"}
    assert "'/nowhere' is not a folder" in snakemake(tmp_path, config, "--dry-run", ok=False)


def test_voxceleb1_needs_a_copy_or_a_key(tmp_path: Path) -> None:
    config = conversion_config()
    entry = {"kind": "voxceleb1", "seed": 0, "shards": 1}
    config["corpora"]["vox"] = entry
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "corpora.vox: VoxCeleb1 has no open download" in output
    assert "https://mm.kaist.ac.kr/datasets/voxceleb" in output
    assert "`root: FOLDER`" in output
    assert "`key_env: VOXCELEB_KEY`" in output
    for key in ("root", "key_env"):
        config["corpora"]["vox"] = entry | {key: "HERE"}
        output = snakemake(tmp_path, config, "manifests", "--dry-run")
        assert "build_manifest_vox" in output
        assert ("resources/corpora/vox/fetched.json" in output) == (key == "key_env")
    config["corpora"]["vox"] = entry | {"key": "a-secret"}
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "allowed are: key_env, kind, licence, root, seed, shards, split" in output
    assert "a-secret" not in output


PRETRAINED: list[tuple[str, Any, str]] = [
    ("vocoder.knnvc.pretrained", "other", "vocoder.knnvc.pretrained = 'other': not in `models`"),
    ("vocoder.knnvc.pretrained", "wavlm-large", "allowed: etaflow-vocoder, knnvc-hifigan"),
    ("vocoder.knnvc.steps", 3, "'steps' was unexpected); allowed are: features, layer, pretrained"),
    ("vocoder.knnvc.features", "cooked", "vocoder.knnvc.features = 'cooked': 'cooked' is not one"),
    ("vocoder.knnvc.features", ..., "vocoder.knnvc: 'features' is a required property"),
    ("models.knnvc-prematched.url", "http://example.org/g.pt", "does not match '^(https://"),
    (
        "models.knnvc-prematched.sha256",
        "12",
        "knnvc-prematched.sha256 = '12': '12' does not",
    ),
    ("models.knnvc-prematched.sha256", ..., "models.knnvc-prematched: 'sha256' is a required"),
    ("bundle.vocoder", "other", "bundle.vocoder = 'other': not in `vocoder`, which has knnvc"),
    ("bundle.eta", "other", "bundle.eta = 'other': not in `eta`, which has nothing"),
    ("eta", {"a": {"corpus": "b"}}, "eta.a: 'ssl' is a required property"),
]


@pytest.mark.parametrize(("key", "value", "message"), PRETRAINED)
def test_a_wrong_key_of_published_models_is_named(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    config = changed(load_config("knnvc-pretrained"), key, value)
    assert message in snakemake(tmp_path, config, "--dry-run", ok=False)


BUNDLED: list[tuple[str, Any, str]] = [
    ("verification.verifier", ..., "bundle.verifier = True: there is no `verification.verifier`"),
    ("bundle.separator", "other", "bundle.separator = 'other': not in `models`, which has"),
    ("bundle.separator", "resemblyzer", "'resemblyzer': a model of architecture resemblyzer; all"),
    ("bundle.separator", None, "bundle.separator = None: "),
    ("bundle.verifier", "cosine", "bundle.verifier = 'cosine': "),
    ("bundle.vocoder", ..., "bundle: 'vocoder' is a required property"),
]


@pytest.mark.parametrize(("key", "value", "message"), BUNDLED)
def test_a_bundle_of_what_is_not_there_is_refused(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    config = changed(untrained_config(), key, value)
    assert message in snakemake(tmp_path, config, "--dry-run", ok=False)


def test_conversion_without_an_eta_model(tmp_path: Path) -> None:
    config = changed(changed(conversion_config(), "eta", ...), "conversion.eta", None)
    for section in ("sweep", "probe"):
        config = changed(config, section, ...)
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "systems.knnvc-eta.method = 'knn-eta' needs one" in output
    systems = {"original": {"method": "original"}, "knnvc": {"method": "knn"}}
    jobs = planned(tmp_path, changed(config, "conversion.systems", systems))
    assert not {"fit_eta", "fit_pca", "plot_umap"} & set(jobs)
    assert (jobs["convert"], jobs["bundle"], jobs["collect_metrics"]) == (3, 1, 1)


def test_prematched_features_need_their_section(tmp_path: Path) -> None:
    output = snakemake(
        tmp_path, changed(conversion_config(), "prematch", ...), "--dry-run", ok=False
    )
    assert "prematch: missing; vocoder.hifigan-tiny is trained on prematched features" in output


def test_a_vocoder_of_eta_features_is_not_given_others(tmp_path: Path) -> None:
    config = changed(conversion_config(), "vocoder.hifigan-tiny.features", "eta")
    config = changed(config, "vocoder.hifigan-tiny.eta", "mini")
    config["conversion"] |= {
        "systems": {
            "copy": {"method": "copy"},
            "eta": {"method": "knn-eta"},
            "raw": {"method": "knn"},
        },
        "references": {"systems": ["eta"], "seconds": [5]},
    }
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert output.count("reads eta features; allowed are original, copy, and methods that end") == 1
    assert "conversion.systems.raw.method = 'knn': the vocoder 'hifigan-tiny' reads" in output
    del config["conversion"]["systems"]["raw"]
    snakemake(tmp_path, config, "--dry-run")
    config["eta"]["other"] = config["eta"]["mini"] | {"pca": 4}
    for section, name in (("conversion", "other"), ("bundle", None)):
        config |= {"bundle": {"vocoder": "hifigan-tiny", "eta": "mini"}}
        wrong = changed(config, f"{section}.eta", name)
        output = snakemake(tmp_path, wrong, "--dry-run", ok=False)
        assert f"{section}.eta = {name!r}: the vocoder 'hifigan-tiny' reads eta features" in output
        assert "say `eta: mini`, which it is trained with" in output


def test_every_key_of_the_schema_is_explained() -> None:
    import yaml

    explained = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    names: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            names.update(
                node.get("properties", {}) if isinstance(node.get("properties"), dict) else {}
            )
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8")))
    assert names
    assert sorted(name for name in names if name not in explained) == []


def test_a_sweep_does_not_take_the_name_of_an_entry(tmp_path: Path) -> None:
    config = conversion_config()
    config["eta"]["mini-layer-1"] = config["eta"]["mini"]
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "eta.mini-layer-1: the sweep over layer needs this name" in output


def test_references_do_not_take_the_name_of_a_system(tmp_path: Path) -> None:
    config = changed(conversion_config(), "conversion.systems.knnvc-5s", {"method": "knn"})
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "conversion.systems.knnvc-5s: conversion.references needs this name" in output


def test_a_corpus_without_test_utterances_or_texts_is_not_probed(tmp_path: Path) -> None:
    config = changed(load_config("librispeech"), "probe.corpus", "librispeech-960")
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "probe.corpus = 'librispeech-960': has no test utterances to probe" in output
    config["corpora"]["vox"] = {"kind": "voxceleb1", "root": "here", "seed": 0, "shards": 1}
    config = changed(config, "probe.corpus", "vox")
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "probe.content: VoxCeleb1 has no texts to align; say `content: null`" in output
    assert "no test utterances" not in output
    snakemake(tmp_path, changed(config, "probe.content", None), "--dry-run")


def test_segments_are_longer_than_the_ends_of_mel_windows(tmp_path: Path) -> None:
    config = changed(conversion_config(), "vocoder.hifigan-tiny.mel_windows", [64, 250])
    config = changed(config, "vocoder.hifigan-tiny.segment_frames", 4)
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "mel_windows: 250 ms is too long for segments of 4 frames; take less than 213" in output

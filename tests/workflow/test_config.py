"""A wrong config is named, key by key, before anything runs."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import ROOT, changed, load_config, planned, snakemake

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
        "corpora.mini.kind = 'minni': allowed are mini, folder, librispeech,",
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
        "architecture wavlm-tiny; allowed: ecapa, resemblyzer, xvector",
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
    output = snakemake(tmp_path, changed(load_config(), key, value), "--dry-run", ok=False)
    assert message in output
    assert not (tmp_path / "results").exists()


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    config = changed(changed(load_config(), "eta.mini.layer", 0), "prematch.topk", 0)
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "eta.mini.layer = 0" in output
    assert "prematch.topk = 0" in output


def test_a_root_that_needs_a_folder_says_how_to_give_it(tmp_path: Path) -> None:
    output = snakemake(tmp_path, load_config("folder"), "--dry-run", ok=False)
    assert "needs a value: --config speech_dir=FOLDER" in output
    config = load_config("folder") | {"speech_dir": "/nowhere"}
    assert "'/nowhere' is not a folder" in snakemake(tmp_path, config, "--dry-run", ok=False)


def test_voxceleb1_needs_a_copy_or_a_key(tmp_path: Path) -> None:
    config = load_config()
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
    assert "allowed are: key_env, kind, root, seed, shards, split" in output
    assert "a-secret" not in output


def test_published_models_need_no_training_and_no_data(tmp_path: Path) -> None:
    config = load_config("knnvc-pretrained")
    expected = {"fetch_model": 2, "import_vocoder": 1, "bundle": 1}
    assert planned(tmp_path, config) == expected
    for target in ("report", "vocoder", "eta", "conversion", "manifests"):
        snakemake(tmp_path, config, target, "--dry-run")
    assert not list(tmp_path.glob("res*"))
    # The licence is no part of what is fetched.
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    (fetching,) = [line for line in output.splitlines() if "--name wavlm-large" in line]
    assert "licence" not in fetching
    without = changed(config, "bundle", ...)
    assert planned(tmp_path, without) == {"fetch_model": 2, "import_vocoder": 1}


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


def test_a_published_vocoder_is_scored_like_one_of_the_run(tmp_path: Path) -> None:
    config = changed(load_config(), "sweep", ...)
    trained = planned(tmp_path, config)
    vocoder = load_config("knnvc-pretrained")["models"]["knnvc-prematched"]
    config["models"]["published"] = vocoder
    entry = {"pretrained": "published", "ssl": "wavlm-tiny", "layer": 3, "features": "prematched"}
    config["vocoder"] = {"hifigan-tiny": entry}
    jobs = planned(tmp_path, changed(config, "prematch", ...))
    assert jobs.pop("import_vocoder") == 1
    # Neither training nor its data, but one model more.
    gone = {rule: n for rule, n in trained.items() if rule in ("train_vocoder", "plot_training")}
    gone["prematch"] = trained["prematch"]
    expected = {rule: n for rule, n in trained.items() if rule not in gone}
    assert jobs == expected | {"fetch_model": expected["fetch_model"] + 1}
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    scored = [line for line in output.splitlines() if "--system knnvc " in line]
    assert all("--model-dir" not in line for line in scored)
    assert "resources/models/published/model.json" in scored[0].split("printf")[1]


def test_conversion_without_an_eta_model(tmp_path: Path) -> None:
    config = changed(changed(load_config(), "eta", ...), "conversion.eta", None)
    for section in ("sweep", "probe"):
        config = changed(config, section, ...)
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "systems.knnvc-eta.method = 'knn-eta' needs one" in output
    systems = {"original": {"method": "original"}, "knnvc": {"method": "knn"}}
    jobs = planned(tmp_path, changed(config, "conversion.systems", systems))
    assert not {"fit_eta", "fit_pca", "plot_umap"} & set(jobs)
    assert (jobs["convert"], jobs["bundle"], jobs["collect_metrics"]) == (4, 1, 1)


def test_prematched_features_need_their_section(tmp_path: Path) -> None:
    output = snakemake(tmp_path, changed(load_config(), "prematch", ...), "--dry-run", ok=False)
    assert "prematch: missing; vocoder.hifigan-tiny is trained on prematched features" in output


@pytest.mark.parametrize("preset", ["config", "folder", "librispeech"])
def test_presets_plan_without_a_network(tmp_path: Path, preset: str) -> None:
    config = load_config(preset)
    if preset == "folder":
        config["speech_dir"] = str(tmp_path)
    output = snakemake(tmp_path, config, "--dry-run")
    assert "train_vocoder" in output
    assert "score_conversion" in output


def test_gpus_are_asked_for_by_the_rules_that_compute_on_them() -> None:
    asking = set()
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for rule in file.read_text(encoding="utf-8").split("rule ")[1:]:
            if "gpu=1" in rule:
                asking.add(rule.split(":")[0])
    assert asking == {
        "dump_features",
        "embed_speakers",
        "prematch",
        "train_vocoder",
        "convert",
        "transcribe",
        "score_conversion",
    }


def test_a_vocoder_of_eta_features_waits_for_its_eta_model(tmp_path: Path) -> None:
    config = changed(load_config(), "vocoder.hifigan-tiny.features", "eta")
    config = changed(config, "vocoder.hifigan-tiny.eta", "mini")
    output = snakemake(tmp_path, config, "vocoder", "--dry-run", "--printshellcmds")
    parts = "--eta results/mini/eta/mini --embeddings results/mini/embeddings/mini/resemblyzer.h5"
    assert parts in output
    assert "fit_eta" in output
    assert "prematch" not in output.split("Job stats")[1].split("total")[0]
    config["eta"]["other"] = config["eta"]["mini"] | {"layer": 2}
    config = changed(config, "vocoder.hifigan-tiny.eta", "other")
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "vocoder.hifigan-tiny.eta = 'other': layer is 2, that of the vocoder is 3" in output


@pytest.mark.parametrize(
    ("gpus", "started"),
    [(0, "python"), (1, "python"), (2, "accelerate launch --multi_gpu --num_processes 2 ")],
)
def test_a_training_is_started_in_a_process_a_gpu(tmp_path: Path, gpus: int, started: str) -> None:
    shown = snakemake(
        tmp_path,
        load_config("librispeech"),
        *("vocoder", "--dry-run", "--printshellcmds", "--resources", f"gpu={gpus}"),
        *("--set-resources", f"train_vocoder:gpu={gpus}"),
    )
    command = next(line for line in shown.splitlines() if "launch=python" in line)
    # What the shell makes of it, up to the script.
    launch = command.removeprefix("Shell command: ").split("$launch")[0] + "echo $launch"
    said = subprocess.run(["bash", "-c", launch], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(started)
    assert f"--gpus {gpus} " in command


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


@pytest.mark.parametrize(
    ("together", "jobs"),
    [
        ([3, 1, 4], {"dump_features__mini__wavlm-tiny": 4}),  # 1 and 3; nothing asks for 4
        ([1, 2], {"dump_features": 8}),
        ([13, 30], {"dump_features": 8}),
    ],
)
def test_layers_together_are_one_job_and_the_others_their_own(
    tmp_path: Path, together: list[int], jobs: dict[str, int]
) -> None:
    config = changed(load_config(), "sweep", {"eta": "mini", "layer": [1, 3]})
    config = changed(config, "ssl.wavlm-tiny.together", together)
    found = planned(tmp_path, config)
    assert {rule: count for rule, count in found.items() if "dump" in rule} == jobs


def test_every_shard_of_a_corpus_is_embedded_and_gathered_once(tmp_path: Path) -> None:
    jobs = planned(tmp_path, changed(load_config(), "corpora.mini.shards", 7))
    assert (
        jobs["dump_features__mini__wavlm-tiny"],
        jobs["embed_speakers"],
        jobs["gather_embeddings"],
    ) == (7, 7, 1)


def test_a_sweep_is_one_eta_model_a_value_and_the_base_is_not_fitted_twice(tmp_path: Path) -> None:
    sweep = {"eta": "mini", "layer": [1, 3], "pca": [16, None], "frames": [None, 20]}
    jobs = planned(tmp_path, changed(load_config(), "sweep", sweep))
    assert (jobs["fit_eta"], jobs["fit_pca"]) == (4, 3)  # without PCA there is none to fit
    assert (jobs["collect_sweep"], jobs["plot_umap"]) == (1, 1)
    jobs = planned(tmp_path, changed(load_config(), "sweep", ...))
    assert jobs["fit_eta"] == 1
    assert not {"collect_sweep", "plot_sweep"} & set(jobs)


def test_a_sweep_does_not_take_the_name_of_an_entry(tmp_path: Path) -> None:
    config = load_config()
    config["eta"]["mini-layer-1"] = config["eta"]["mini"]
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "eta.mini-layer-1: the sweep over layer needs this name" in output


def test_an_amount_of_reference_is_a_system_and_all_of_it_the_base_itself(tmp_path: Path) -> None:
    config = changed(
        load_config(),
        "conversion.references",
        {"systems": ["knnvc", "knnvc-eta"], "seconds": [5, 60, None]},
    )
    jobs = planned(tmp_path, config)
    assert (jobs["convert"], jobs["score_conversion"]) == (5 + 4, 5 + 4)
    assert jobs["plot_references"] == 1
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    for entry in (
        "knnvc=5=results/mini/conversion/knnvc-5s ",
        "knnvc=all=results/mini/conversion/knnvc ",
        "knnvc-eta=60=results/mini/conversion/knnvc-eta-60s ",
    ):
        assert f"--entry {entry}" in output
    (det,) = [line for line in output.splitlines() if "plot_det.py results" in line]
    assert det.count("trials.tsv") == 5
    # A base that has an amount of its own is the system of that amount.
    config["conversion"]["systems"]["knnvc"]["reference_seconds"] = 5
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    assert "knnvc=5=results/mini/conversion/knnvc " in output
    assert "knnvc=all=results/mini/conversion/knnvc-all " in output
    jobs = planned(tmp_path, changed(config, "conversion.references", ...))
    assert jobs["convert"] == 5
    assert "plot_references" not in jobs


def test_listed_pairs_need_no_test_split(tmp_path: Path) -> None:
    config = changed(load_config(), "corpora.mini.split.test_fraction", 0)
    config = changed(config, "probe", ...)
    pairs = {"sources": ["s00-000"], "targets": ["s01"]}
    assert planned(tmp_path, changed(config, "conversion.pairs", pairs))["score_conversion"] == 9


def test_references_do_not_take_the_name_of_a_system(tmp_path: Path) -> None:
    config = changed(load_config(), "conversion.systems.knnvc-5s", {"method": "knn"})
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "conversion.systems.knnvc-5s: conversion.references needs this name" in output


def test_probes_are_made_of_every_eta_model_where_the_config_asks(tmp_path: Path) -> None:
    config = changed(load_config(), "sweep", ...)
    config["eta"]["all"] = config["eta"]["mini"] | {"pca": None}
    jobs = planned(tmp_path, config)
    assert (jobs["align_texts"], jobs["probe_speakers"]) == (1, 2)
    jobs = planned(tmp_path, changed(config, "probe.content", None))
    assert (jobs.get("align_texts"), jobs["probe_speakers"]) == (None, 2)
    jobs = planned(tmp_path, changed(config, "probe", ...))
    assert not {"align_texts", "probe_speakers"} & set(jobs)


def test_words_are_probed_where_the_vocabulary_is_closed(tmp_path: Path) -> None:
    output = snakemake(tmp_path, load_config(), "eta", "--dry-run", "--printshellcmds")
    assert "--alignments results/mini/alignments/mini.tsv --words" in output
    config = load_config("librispeech")
    output = snakemake(tmp_path, config, "eta", "--dry-run", "--printshellcmds")
    assert "--alignments results/librispeech/alignments/librispeech-test.tsv --out" in output
    assert "--words" not in output


def test_a_probed_corpus_of_its_own_gets_features_and_embeddings_of_the_eta_model(
    tmp_path: Path,
) -> None:
    config = changed(load_config(), "sweep", ...)
    with_one = planned(tmp_path, config)
    corpus = config["corpora"]["mini"] | {"seed": 1, "shards": 3}
    config["corpora"]["other"] = corpus
    jobs = planned(tmp_path, changed(config, "probe.corpus", "other"))
    for rule in ("dump_features", "embed_speakers"):
        assert jobs[rule] == with_one[rule] + 3
    assert (jobs["gather_embeddings"], jobs["align_texts"], jobs["probe_speakers"]) == (2, 1, 1)


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

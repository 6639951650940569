"""What the workflow would run for a config, and how."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import ROOT, changed, conversion_config, load_config, planned, snakemake


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


def test_a_published_vocoder_is_scored_like_one_of_the_run(tmp_path: Path) -> None:
    config = changed(conversion_config(), "sweep", ...)
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
        "train_speaker_encoder",
        "train_separator",
        "separate",
        "convert",
        "transcribe",
        "score_conversion",
    }


def test_a_vocoder_of_eta_features_waits_for_its_eta_model(tmp_path: Path) -> None:
    config = changed(conversion_config(), "vocoder.hifigan-tiny.features", "eta")
    config = changed(config, "vocoder.hifigan-tiny.eta", "mini")
    config = changed(config, "conversion", ...)
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


def test_a_training_is_named_by_what_its_result_depends_on(tmp_path: Path) -> None:
    def command(key: str, value: Any) -> str:
        config = changed(conversion_config(), f"vocoder.hifigan-tiny.{key}", value)
        shown = snakemake(tmp_path, config, "vocoder", "--dry-run", "--printshellcmds")
        return next(line for line in shown.splitlines() if "launch=python" in line)

    often = command("checkpoints", {"every": 7, "keep": 3})
    assert "--checkpoint-every 7 --checkpoints-kept 3 " in often
    usual = command("checkpoints", {"every": 150, "keep": 2})
    configs = [line.split("--config ")[1].split(" --manifest")[0] for line in (often, usual)]
    assert configs[0] == configs[1]
    assert configs[0] != command("steps", 7).split("--config ")[1].split(" --manifest")[0]


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
    config = changed(conversion_config(), "sweep", {"eta": "mini", "layer": [1, 3]})
    config = changed(config, "ssl.wavlm-tiny.together", together)
    found = planned(tmp_path, config)
    assert {rule: count for rule, count in found.items() if "dump" in rule} == jobs


def test_every_shard_of_a_corpus_is_embedded_and_gathered_once(tmp_path: Path) -> None:
    jobs = planned(tmp_path, changed(conversion_config(), "corpora.mini.shards", 7))
    assert (
        jobs["dump_features__mini__wavlm-tiny"],
        jobs["embed_speakers"],
        jobs["gather_embeddings"],
    ) == (7, 7, 1)


def test_a_sweep_is_one_eta_model_a_value_and_the_base_is_not_fitted_twice(tmp_path: Path) -> None:
    sweep = {"eta": "mini", "layer": [1, 3], "pca": [16, None], "frames": [None, 20]}
    jobs = planned(tmp_path, changed(conversion_config(), "sweep", sweep))
    assert (jobs["fit_eta"], jobs["fit_pca"]) == (4, 3)  # without PCA there is none to fit
    assert (jobs["collect_sweep"], jobs["plot_umap"]) == (1, 1)
    jobs = planned(tmp_path, changed(conversion_config(), "sweep", ...))
    assert jobs["fit_eta"] == 1
    assert not {"collect_sweep", "plot_sweep"} & set(jobs)


def test_an_amount_of_reference_is_a_system_and_all_of_it_the_base_itself(tmp_path: Path) -> None:
    config = changed(
        conversion_config(),
        "conversion.references",
        {"systems": ["knnvc", "knnvc-eta"], "seconds": [5, 60, None]},
    )
    jobs = planned(tmp_path, config)
    given = len(config["conversion"]["systems"])
    assert (jobs["convert"], jobs["score_conversion"]) == (given + 4, given + 4)
    assert jobs["plot_references"] == 1
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    for entry in (
        "knnvc=5=results/mini/conversion/knnvc-5s ",
        "knnvc=all=results/mini/conversion/knnvc ",
        "knnvc-eta=60=results/mini/conversion/knnvc-eta-60s ",
    ):
        assert f"--entry {entry}" in output
    (det,) = [line for line in output.splitlines() if "plot_det.py results" in line]
    assert det.count("trials.tsv") == given
    # A base that has an amount of its own is the system of that amount.
    config["conversion"]["systems"]["knnvc"]["reference_seconds"] = 5
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    assert "knnvc=5=results/mini/conversion/knnvc " in output
    assert "knnvc=all=results/mini/conversion/knnvc-all " in output
    jobs = planned(tmp_path, changed(config, "conversion.references", ...))
    assert jobs["convert"] == given
    assert "plot_references" not in jobs


def test_probes_are_made_of_every_eta_model_where_the_config_asks(tmp_path: Path) -> None:
    config = changed(conversion_config(), "sweep", ...)
    config["eta"]["all"] = config["eta"]["mini"] | {"pca": None}
    jobs = planned(tmp_path, config)
    assert (jobs["align_texts"], jobs["probe_speakers"]) == (1, 2)
    jobs = planned(tmp_path, changed(config, "probe.content", None))
    assert (jobs.get("align_texts"), jobs["probe_speakers"]) == (None, 2)
    jobs = planned(tmp_path, changed(config, "probe", ...))
    assert not {"align_texts", "probe_speakers"} & set(jobs)


def test_words_are_probed_where_the_vocabulary_is_closed(tmp_path: Path) -> None:
    output = snakemake(tmp_path, conversion_config(), "eta", "--dry-run", "--printshellcmds")
    assert "--alignments results/mini/alignments/mini.tsv --words" in output
    config = load_config("librispeech")
    output = snakemake(tmp_path, config, "eta", "--dry-run", "--printshellcmds")
    assert "--alignments results/librispeech/alignments/librispeech-test.tsv --out" in output
    assert "--words" not in output


def test_a_probed_corpus_of_its_own_gets_features_and_embeddings_of_the_eta_model(
    tmp_path: Path,
) -> None:
    config = changed(conversion_config(), "sweep", ...)
    with_one = planned(tmp_path, config)
    corpus = config["corpora"]["mini"] | {"seed": 1, "shards": 3}
    config["corpora"]["other"] = corpus
    jobs = planned(tmp_path, changed(config, "probe.corpus", "other"))
    for rule in ("dump_features", "embed_speakers"):
        assert jobs[rule] == with_one[rule] + 3
    assert (jobs["gather_embeddings"], jobs["align_texts"], jobs["probe_speakers"]) == (2, 1, 1)


def test_listed_pairs_need_no_test_split(tmp_path: Path) -> None:
    config = changed(conversion_config(), "corpora.mini.split.test_fraction", 0)
    config = changed(config, "probe", ...)
    pairs = {"sources": ["s00-000"], "targets": ["s01"]}
    assert planned(tmp_path, changed(config, "conversion.pairs", pairs))["score_conversion"] == 9

"""What the workflow would run for a config, and how."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import (
    ROOT,
    changed,
    command_line,
    conversion_config,
    environment,
    load_config,
    planned,
    small_config,
    snakemake,
    untrained_config,
)


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


def bundling(folder: Path, config: dict[str, Any]) -> str:
    """The command of the bundle's job."""
    output = snakemake(folder, config, "results/mini/bundle/config.json", "-n", "--printshellcmds")
    (line,) = [line for line in output.splitlines() if "scripts/bundle.py --config" in line]
    return line


def test_a_bundle_holds_what_its_section_asks_for(tmp_path: Path) -> None:
    config = untrained_config()
    whole = bundling(tmp_path, config)
    others = (
        "--metrics results/mini/conversion/metrics.tsv --verifier results/mini/verifier "
        "--verification-metrics results/mini/verification/metrics.tsv "
        "--separator results/mini/separators/sepformer/model.json "
        "--separation-metrics results/mini/separation/metrics.tsv --output results/mini/bundle/"
    )
    assert others in whole
    assert '"separated_by": ["sepformer"]' in whole
    assert '"dtype": "float32"' in whole
    assert '"trained_on": {"eta": ["mini"], "vocoder": ["mini"]}' in whole
    assert "--manifest mini=results/mini/manifests/mini.recordings.tsv --ssl resources/" in whole
    assert '"verifier": {"licence": "", "place": ""}}' in whole
    # Separators of the registry need no system, and say where they are from.
    published = load_config("librimix")["models"]["sepformer-libri2mix"]
    config["models"]["published"] = published
    config["bundle"] |= {"verifier": False, "separator": "published"}
    line = bundling(tmp_path, config)
    assert "--separator resources/models/published/model.json --output" in line
    assert f'"place": "https://huggingface.co/{published["repo"]}"' in line
    assert "verif" not in line.partition("--ssl")[2]
    alone = changed(changed(config, "bundle.separator", ...), "bundle.verifier", ...)
    assert bundling(tmp_path, alone) == bundling(tmp_path, changed(config, "bundle", ...))


def test_what_a_trained_verifier_and_separator_come_from_is_the_run(tmp_path: Path) -> None:
    config = changed(untrained_config(), "verification.verifier.system", "ecapa-aam")
    config = changed(config, "eta.mini.encoder", "ecapa-ge2e")
    config = changed(config, "corpora.mini-voices.licence", "mine")
    config = changed(config, "bundle.dtype", "float16")
    line = bundling(tmp_path, config)
    assert '"origins": {"ssl": {"licence": "", "place": ""}}' in line
    corpora = '"trained_on": {"eta": ["mini"], "speaker": ["mini-voices"], "vocoder": ["mini"]}'
    assert corpora in line
    assert '"licences": {"mini-voices": "mine"}' in line
    assert '"dtype": "float16"' in line
    assert "--manifest mini-voices=results/mini/manifests/mini-voices.recordings.tsv " in line


def test_a_bundle_names_what_its_ssl_encoder_was_pretrained_on(tmp_path: Path) -> None:
    config = conversion_config()
    config["pretraining"] = load_config("pretrain")["pretraining"]
    config["pretraining"]["wavlm-mfcc"]["corpus"] = ["mini", "other"]
    config["pretraining"]["wavlm-mini"]["corpus"] = "mini"
    config["corpora"]["other"] = config["corpora"]["mini"]
    config["ssl"]["wavlm-tiny"]["model"] = "wavlm-mini"
    line = bundling(tmp_path, config)
    assert '"ssl": ["mini", "other"]' in line
    assert '"origins": {"speaker"' in line
    assert "--ssl results/mini/pretraining/wavlm-mini/model.json" in line
    assert "--manifest other=results/mini/manifests/other.recordings.tsv" in line


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
        "pretrain_ssl",
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


def test_a_training_goes_on_from_a_fetched_vocoder(tmp_path: Path) -> None:
    config = changed(conversion_config(), "vocoder.hifigan-tiny.generator", ...)
    config = changed(config, "conversion", ...)
    config["vocoder"]["hifigan-tiny"]["start"] = "published"
    config["models"]["published"] = load_config("knnvc-pretrained")["models"]["knnvc-prematched"]
    output = snakemake(tmp_path, config, "vocoder", "--dry-run", "--printshellcmds")
    assert "--start resources/models/published/model.json" in output
    assert '"start": "published"' in output
    assert planned(tmp_path, config, "vocoder")["fetch_model"] == 2
    config = changed(config, "vocoder.hifigan-tiny.start", "resemblyzer")
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "hifigan-tiny.start = 'resemblyzer': a model of architecture resemblyzer" in output


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


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_a_training_is_started_in_a_process_a_gpu(tmp_path: Path, gpus: int) -> None:
    shown = snakemake(
        tmp_path,
        load_config("librispeech"),
        *("vocoder", "--dry-run", "--printshellcmds", "--resources", f"gpu={gpus}"),
        *("--set-resources", f"train_vocoder:gpu={gpus}"),
    )
    (command,) = [line for line in shown.splitlines() if "--checkpoint-every" in line]
    started = f"python -m etaflow.launch --gpus {gpus} --machines 1 -- "
    assert command.removeprefix("Shell command: ").startswith(started)
    assert f"--gpus {gpus} 2>" in command


def test_a_training_is_named_by_what_its_result_depends_on(tmp_path: Path) -> None:
    def command(key: str, value: Any) -> str:
        config = changed(conversion_config(), f"vocoder.hifigan-tiny.{key}", value)
        shown = snakemake(tmp_path, config, "vocoder", "--dry-run", "--printshellcmds")
        return next(line for line in shown.splitlines() if "--checkpoint-every" in line)

    often = command("checkpoints", {"every": 7, "keep": 3})
    assert "--checkpoint-every 7 --checkpoints-kept 3 " in often
    usual = command("checkpoints", {"every": 150, "keep": 2})
    configs = [line.split("--config ")[1].split(" --manifest")[0] for line in (often, usual)]
    assert configs[0] == configs[1]
    assert configs[0] != command("steps", 7).split("--config ")[1].split(" --manifest")[0]


@pytest.mark.parametrize(
    ("together", "jobs"),
    [
        ([3, 1, 4], {"dump_features__mini__wavlm-tiny": 2}),  # 1 and 3; nothing asks for 4
        ([1, 2], {"dump_features": 4}),
        ([13, 30], {"dump_features": 4}),
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
    assert planned(tmp_path, changed(config, "conversion.pairs", pairs))["score_conversion"] == 8


LOOKS = """
import sys
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

JobScheduler._schedule_reevalutation = lambda self, delay: print(f"looks again in {delay} s")
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("limit", "looks"), [((), 0), (("--max-jobs-per-timespan", "50/2s"), 3)])
def test_jobs_are_looked_for_by_the_clock_only_where_the_user_limits_them(
    tmp_path: Path, limit: tuple[str, ...], looks: int
) -> None:
    config = small_config()
    config["corpora"]["mini"] |= {"speakers": 3, "sentences": 2}
    arguments = command_line(tmp_path, config, "manifests", *limit, cores=1)[1:]
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/small/manifests/mini.tsv").is_file()
    # A job each for the corpus, its manifest and the target.
    assert done.stdout.count("looks again in 2.0 s") == looks
    assert done.stdout.count("looks again") == looks

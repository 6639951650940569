"""What the workflow would run for speaker encoders and verification, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import (
    changed,
    load_config,
    planned,
    snakemake,
    speakers_config,
    untrained_config,
)

PRESETS = ["voxceleb", "kathbath", "wavlm-rawnet", "ge2e"]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_plan_without_a_network(tmp_path: Path, preset: str) -> None:
    config = load_config(preset)
    jobs = planned(tmp_path, config)
    lists = config["verification"]["evaluate"]
    assert jobs["score_verification"] == len(lists) * len(config["verification"]["systems"])
    assert jobs.get("train_speaker_encoder", 0) == len(config.get("encoders", {}))
    assert not {"dump_features", "train_vocoder", "convert", "fit_eta"} & set(jobs)
    assert not list(tmp_path.glob("res*"))


def test_an_utterance_is_embedded_once_for_all_trials_and_systems(tmp_path: Path) -> None:
    jobs = planned(tmp_path, load_config("voxceleb"))
    encoders, shards = 6, 64
    assert jobs["embed_speakers"] == encoders * shards
    assert jobs["gather_embeddings"] == encoders
    assert (jobs["make_trials"], jobs["fetch_trial_list"]) == (3, 3)


def test_an_encoder_is_not_scored_on_voices_it_was_trained_on(tmp_path: Path) -> None:
    config = load_config("wavlm-rawnet")
    config["verification"]["trials"]["vox1-e"] = {"corpus": "voxceleb1", "list": "vox1-e"}
    assert planned(tmp_path, config)["score_verification"] == 2
    whose = "has speakers of 'voxceleb1' that the encoder 'fusion' of the system 'fusion' is"
    both = changed(config, "verification.evaluate", ["vox1-o", "vox1-e"])
    output = snakemake(tmp_path, both, "--dry-run", ok=False)
    assert f"'vox1-e' {whose}" in output
    assert "'vox1-o' has" not in output
    split = changed(config, "corpora.voxceleb1.split", {"by": "speaker", "test_fraction": 0.1})
    assert f"'vox1-o' {whose}" in snakemake(tmp_path, split, "--dry-run", ok=False)


def test_a_verifiers_card_names_what_its_encoder_was_trained_on(tmp_path: Path) -> None:
    output = snakemake(
        tmp_path, load_config("ge2e"), "verification", "--dry-run", "--printshellcmds"
    )
    assert '"corpora": ["libritts", "vctk"]' in output


def test_the_page_says_what_encoders_were_trained_on(tmp_path: Path) -> None:
    output = snakemake(tmp_path, load_config("ge2e"), "--dry-run", "--printshellcmds")
    (line,) = [line for line in output.splitlines() if " --systems " in line]
    assert '"resemblyzer": {"encoder": "resemblyzer", "max_seconds": null,' in line
    assert '"as_norm": null, "corpora": ["libritts"]}' in line


def test_the_beginning_of_utterances_has_embeddings_of_its_own(tmp_path: Path) -> None:
    config = speakers_config()
    output = snakemake(tmp_path, config, "verification", "--dry-run", "--printshellcmds")
    assert "--max-seconds 1.5 --output results/speakers/embeddings/mini-voices/" in output
    assert "resemblyzer-first1.5s/0000.h5" in output
    (scored,) = [line for line in output.splitlines() if "--system resemblyzer-short" in line]
    assert "--embeddings results/speakers/embeddings/mini-voices/resemblyzer-first1.5s.h5" in scored


def test_what_a_system_needs_is_made_and_nothing_else(tmp_path: Path) -> None:
    config = speakers_config()
    jobs = planned(tmp_path, config)
    assert jobs["score_calibrated"] == 1
    assert jobs["make_trials"] == 2  # those that are scored, and those that are calibrated on
    assert jobs["train_speaker_encoder"] == 7
    assert jobs["plot_speakers"] == 1
    without = changed(config, "verification.systems.resemblyzer-calibrated", ...)
    without = changed(without, "verification.verifier", ...)
    jobs = planned(tmp_path, without)
    assert "score_calibrated" not in jobs
    assert "bundle_verifier" not in jobs
    assert jobs["make_trials"] == 1


def test_an_encoder_is_trained_on_several_corpora(tmp_path: Path) -> None:
    config = speakers_config()
    config["corpora"]["others"] = config["corpora"]["mini-voices"] | {"seed": 2}
    for name in ("ecapa-aam", "ecapa-ge2e"):
        config["encoders"][name]["corpus"] = ["others", "mini-voices"]
    output = snakemake(tmp_path, config, "encoders", "--dry-run", "--printshellcmds")
    (line,) = [each for each in output.splitlines() if "encoders/ecapa-aam " in each]
    files = [
        f"results/speakers/manifests/{name}.recordings.tsv" for name in ("others", "mini-voices")
    ]
    assert f"$(printf ' --manifest %s' {' '.join(files)})" in line
    config["verification"]["trials"]["mini-test"] |= {"corpus": "others", "split": "all"}
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "'mini-test' has speakers of 'others' that the encoder 'ecapa-aam'" in output
    config["encoders"]["ecapa-aam"]["corpus"] = ["others", "nothing"]
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "encoders.ecapa-aam.corpus = 'nothing': not in `corpora`" in output


def test_a_trained_encoder_stands_where_one_of_the_models_does(tmp_path: Path) -> None:
    config = untrained_config()
    config["eta"]["mini"]["encoder"] = "ecapa-ge2e"
    config["conversion"]["judge"] = "ecapa-aam"
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    assert "--model results/mini/encoders/ecapa-ge2e/model.json" in output
    assert "--judge-dir $(dirname results/mini/encoders/ecapa-aam/model.json)" in output
    assert "--speaker results/mini/encoders/ecapa-ge2e/model.json" in output


def test_a_verifier_names_the_corpora_that_its_encoder_heard(tmp_path: Path) -> None:
    config = speakers_config()
    config["corpora"]["other"] = {**config["corpora"]["mini-voices"], "seed": 5}
    config = changed(config, "encoders.ecapa-am.network", {"pretrained": "ecapa-aam"})
    config = changed(config, "encoders.ecapa-aam.corpus", "other")
    config = changed(config, "verification.verifier.system", "ecapa-am")
    output = snakemake(tmp_path, config, "verification", "--dry-run", "--printshellcmds")
    (bundled,) = [line for line in output.splitlines() if "--system ecapa-am --config" in line]
    assert '"corpora": ["mini-voices", "other"]' in bundled


def test_a_training_depends_on_what_its_augmentation_reads(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.wav").write_bytes(b"1")
    noise = {"noise": {"folder": "noise", "snr": [0, 15], "probability": 0.5}}
    config = changed(speakers_config(), "encoders.ecapa-aam.augmentation", noise)
    snakemake(tmp_path, config, "encoders", "--dry-run")
    config["encoders"]["ecapa-aam"]["augmentation"]["noise"]["folder"] = "nowhere"
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    assert "augmentation.noise.folder = 'nowhere': there is no such folder" in output


REFUSED: list[tuple[str, Any, str]] = [
    ("encoders.ecapa-aam.loss.kind", "triplet", "loss.kind = 'triplet': allowed are ge2e, bce"),
    ("encoders.ecapa-aam.network.kind", "resnet", "network.kind = 'resnet': allowed are ecapa,"),
    (
        "encoders.ecapa-aam.network",
        {"pretrained": "x"},
        "network.pretrained = 'x': not in `models`",
    ),
    (
        "encoders.ecapa-aam.network",
        {"pretrained": "resemblyzer"},
        "a model of architecture resemblyzer; allowed: ecapa, etaflow-encoder, unispeech,",
    ),
    ("encoders.ecapa-aam.network.channels", 20, "20 is not a multiple of 8"),
    (
        "encoders.ecapa-ge2e.network",
        {"pretrained": "ecapa-ge2e"},
        "network.pretrained: ecapa-ge2e from ecapa-ge2e: none of them comes first",
    ),
    ("encoders.ecapa-ge2e.utterances", 1, "utterances = 1: ge2e needs 2 or more of a speaker"),
    ("encoders.ecapa-aam.trained_layers", 2, "the network is new, all of it is trained"),
    ("encoders.ecapa-aam.epochs", 2, "ecapa-aam: how long it is trained is said by `steps` or by"),
    ("encoders.ecapa-aam.steps", ..., "how long it is trained is said by `steps` or by `epochs`"),
    ("encoders.resemblyzer", "copy", "encoders.resemblyzer: `models` has that name, too"),
    ("verification.evaluate", ["vox"], "verification.evaluate = 'vox': not in `verification.tri"),
    ("verification.evaluate", ["mini-test", "mini-train"], "calibrate on others, of other speak"),
    ("verification.systems.resemblyzer.encoder", "wavlm-tiny", "architecture wavlm-tiny; allowed"),
    ("verification.systems.x", {"average": ["a", "b"]}, "systems.x.average = 'a': not in"),
    (
        "verification.systems.x",
        {"average": ["resemblyzer", "ecapa-aam-wavlm-rawnet"]},
        "'ecapa-aam-wavlm-rawnet' is an average itself",
    ),
    (
        "verification.systems.x",
        {"average": ["ecapa-aam", "resemblyzer-calibrated"]},
        "one kind have a mean; they are ecapa-aam: cosines, resemblyzer-calibrated: log-like",
    ),
    (
        "corpora.mini-voices.split.by",
        "session",
        "'mini-test' has speakers of 'mini-voices' that the encoder 'ecapa-aam' of the system",
    ),
    (
        "verification.trials.mini-test.split",
        "all",
        "'wavlm-rawnet' of the system 'wavlm-rawnet' is trained on; its error rate would be",
    ),
    ("verification.systems.trials", {"encoder": "resemblyzer"}, "a folder of the results has"),
    (
        "verification.trials.mini-test",
        {"corpus": "mini-voices", "list": "vox1-o"},
        "list = 'vox1-o': trials of VoxCeleb1, not of 'mini-voices'",
    ),
    (
        "verification.trials.mini-test",
        {"corpus": "mini-voices", "list": "mine.txt"},
        "list = 'mine.txt': no such file, and none of vox1-o, vox1-e, vox1-h",
    ),
    ("verification.verifier.system", "resemblyzer-norm", "has a cohort"),
    ("verification.verifier.system", "ecapa-aam-wavlm-rawnet", "an average"),
    ("corpora.mini-voices.split.test_fraction", 0, "'mini-voices' has no test utterances"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_wrong_config_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    config = speakers_config()
    if value == "copy":
        value = config["encoders"]["ecapa-aam"]
    output = snakemake(tmp_path, changed(config, key, value), "--dry-run", ok=False)
    assert message in output
    assert "Traceback" not in output


def test_encoders_start_from_one_another_but_not_in_a_circle(tmp_path: Path) -> None:
    config = changed(speakers_config(), "encoders.ecapa-am.network", {"pretrained": "ecapa-aam"})
    config = changed(config, "encoders.ecapa-bce.network", {"pretrained": "ecapa-am"})
    assert planned(tmp_path, config)["train_speaker_encoder"] == 7
    config = changed(config, "encoders.ecapa-aam.network", {"pretrained": "ecapa-bce"})
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    circle = "pretrained: ecapa-aam from ecapa-bce from ecapa-am from ecapa-aam: none of them"
    assert f"encoders.ecapa-aam.network.{circle}" in output
    # Not in the circle, but at the end of one.
    config = changed(config, "encoders.ecapa-ge2e.network", {"pretrained": "ecapa-aam"})
    assert "encoders.ecapa-ge2e" not in snakemake(tmp_path, config, "--dry-run", ok=False)


def test_speakers_are_strangers_to_what_an_encoder_was_trained_from(tmp_path: Path) -> None:
    config = speakers_config()
    config["corpora"]["other"] = {**config["corpora"]["mini-voices"], "seed": 5}
    config = changed(config, "encoders.ecapa-am.network", {"pretrained": "ecapa-aam"})
    config = changed(config, "encoders.ecapa-aam.corpus", "other")
    config["verification"]["trials"]["others"] = {
        **config["verification"]["trials"]["mini-test"],
        "corpus": "other",
        "split": "train",
    }
    config["verification"]["evaluate"].append("others")
    output = snakemake(tmp_path, config, "--dry-run", ok=False)
    for system in ("ecapa-aam", "ecapa-am"):
        assert f"the encoder 'ecapa-aam' of the system {system!r} is trained on" in output
    assert "'ecapa-bce' of" not in output  # heard others
    assert "'ecapa-untrained' of" not in output  # and this one none

"""What the workflow would run to pretrain the small models, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import changed, load_config, planned, snakemake


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    speech = tmp_path / "speech" / "pretraining" / "LibriSpeech" / "1"
    speech.mkdir(parents=True)
    (speech / "1-2-3.wav").touch()
    return load_config("pretrain") | {"speech_dir": str(tmp_path / "speech")}


def command_of(output: str, script: str) -> str:
    """The one command of a script that Snakemake prints."""
    lines = [line for line in output.splitlines() if f"scripts/{script}.py --config" in line]
    assert len(lines) == 1, output
    return lines[0]


def test_the_bundle_is_trained_from_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    jobs = planned(tmp_path, config, "results/pretrain/bundle/config.json")
    assert not {"fetch_model", "import_vocoder"} & set(jobs)
    counts = {name: jobs[name] for name in ("cluster_frames", "pretrain_ssl", "train_vocoder")}
    assert counts == {"cluster_frames": 2, "pretrain_ssl": 2, "train_vocoder": 1}
    assert jobs["train_speaker_encoder"] == 1
    shards = sum(corpus["shards"] for corpus in config["corpora"].values())
    assert (jobs["dump_features"], jobs["prematch"]) == (shards, shards)


def test_the_first_iteration_waits_for_no_model(tmp_path: Path, config: dict[str, Any]) -> None:
    target = "results/pretrain/pretraining/wavlm-mfcc/model.json"
    jobs = planned(tmp_path, config, target)
    assert (jobs["cluster_frames"], jobs["pretrain_ssl"]) == (1, 1)
    output = snakemake(tmp_path, config, "--dry-run", "--printshellcmds", target)
    line = command_of(output, "pretrain_ssl")
    entry = dict(config["pretraining"]["wavlm-mfcc"])
    for key in ("corpus", "targets", "checkpoints"):
        del entry[key]
    assert json.loads(line.split("--config '")[1].split("'")[0]) == entry


def test_a_pretraining_runs_again_for_its_own_keys_alone(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    def commands(key: str, value: Any) -> tuple[str, str]:
        output = snakemake(
            tmp_path,
            changed(config, f"pretraining.wavlm-mfcc.{key}", value),
            *("--dry-run", "--printshellcmds"),
            "results/pretrain/pretraining/wavlm-mfcc/model.json",
        )
        train = command_of(output, "pretrain_ssl").split(" --checkpoint-every")[0]
        return command_of(output, "cluster_frames"), train

    before = commands("seed", 0)
    assert commands("checkpoints", {"every": 7, "keep": 1}) == before
    cluster, train = commands("steps", 7)
    assert (cluster == before[0], train == before[1]) == (True, False)
    cluster, train = commands("targets.clusters", 7)
    assert (cluster == before[0], train == before[1]) == (False, True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "wavlm-mfcc.network",
            {"pretrained": "wavlm-mini"},
            "pretraining.wavlm-mfcc: it is made from itself, by `network.pretrained` or",
        ),
        (
            "wavlm-mini.network.pretrained",
            "nowhere",
            "pretraining.wavlm-mini.network.pretrained = 'nowhere': not in `models`",
        ),
        (
            "wavlm-mini.targets.model",
            "nowhere",
            "pretraining.wavlm-mini.targets.model = 'nowhere': not in `models`",
        ),
        ("wavlm-mini.corpus", ["nowhere"], "pretraining.wavlm-mini.corpus = 'nowhere': not in"),
        (
            "wavlm-mini.overlaid",
            {"speech": 0.6, "noise": 0.5},
            "pretraining.wavlm-mini.overlaid: the two probabilities are more than 1 together",
        ),
        ("wavlm-mini.masked", 0, "pretraining.wavlm-mini.masked = 0: "),
        ("wavlm-mini.targets.kind", "lpc", "pretraining.wavlm-mini.targets.kind = 'lpc': allowed"),
    ],
)
def test_what_could_only_fail_is_refused(
    tmp_path: Path, config: dict[str, Any], key: str, value: Any, message: str
) -> None:
    wrong = changed(config, f"pretraining.{key}", value)
    assert message in snakemake(tmp_path, wrong, "--dry-run", ok=False)


def test_a_name_is_of_one_model(tmp_path: Path, config: dict[str, Any]) -> None:
    wrong = changed(
        config,
        "models.wavlm-mini",
        {"source": "random", "architecture": "wavlm-tiny", "seed": 0},
    )
    output = snakemake(tmp_path, wrong, "--dry-run", ok=False)
    assert "pretraining.wavlm-mini: `models` has that name, too; the two must differ" in output


def test_a_pretrained_wavlm_is_no_speaker_encoder_and_no_vocoder(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    wrong = changed(config, "eta.voices.encoder", "wavlm-mini")
    output = snakemake(tmp_path, wrong, "--dry-run", ok=False)
    assert "eta.voices.encoder = 'wavlm-mini': not in `models`" in output

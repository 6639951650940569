"""Every profile plans the workflow; rules ask for what their inputs need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow_tools import ROOT, changed, load_config, snakemake, untrained_config

PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/profile.v9+.yaml"))


def resources(said: str) -> dict[str, list[dict[str, str]]]:
    """What the jobs of each rule ask for, from a dry run."""
    found: dict[str, list[dict[str, str]]] = {}
    for rule, block in re.findall(r"^(?:local)?rule (\S+):\n((?:    .*\n)*)", said, re.MULTILINE):
        (line,) = re.findall(r"    resources: (.*)", block)
        threads = re.findall(r"    threads: (\d+)", block) or ["1"]
        asked = dict(each.split("=", 1) for each in line.split(", "))
        found.setdefault(rule, []).append(asked | {"threads": threads[0]})
    return found


def plan(folder: Path, config: dict[str, Any], profile: str, *arguments: str) -> str:
    chosen = ROOT / "profiles" / profile
    partitions = f"slurm-partition-config: {ROOT}/profiles/slurm/partitions.yaml"
    text = (chosen / "profile.v9+.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^slurm-partition-config: .*$", partitions, text, flags=re.MULTILINE)
    (folder / "profile").mkdir(exist_ok=True)
    (folder / "profile" / "profile.v9+.yaml").write_text(text, encoding="utf-8")
    return snakemake(folder, config, "--dry-run", *arguments, profile=folder / "profile", cores=16)


def test_the_profiles_are_these() -> None:
    assert PROFILES == ["default", "kubernetes", "slurm", "workstation"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_plans_the_paper_scale_run(tmp_path: Path, profile: str) -> None:
    said = resources(plan(tmp_path, load_config("librispeech"), profile))
    asking = {rule for rule, jobs in said.items() if any(job.get("gpu") for job in jobs)}
    assert asking == {
        *("dump_features", "embed_speakers", "prematch", "train_vocoder"),
        *("convert", "transcribe", "score_conversion"),
    }
    gpus = "0" if profile == "default" else "1"
    assert {job["gpu"] for rule in asking for job in said[rule]} == {gpus}
    threads = "1" if profile == "default" else "8"
    assert said["train_vocoder"][0]["threads"] == threads


def test_rules_of_gpus_and_no_others_ask_for_one(tmp_path: Path) -> None:
    said = resources(plan(tmp_path, untrained_config(), "slurm"))
    asking = {rule.split("__")[0] for rule, jobs in said.items() if "gpu" in jobs[0]}
    assert asking == {
        *("dump_features", "embed_speakers", "prematch", "train_vocoder"),
        *("convert", "transcribe", "score_conversion"),
        *("train_speaker_encoder", "train_separator", "separate"),
    }
    for rule, jobs in said.items():
        assert {"gpu" in job for job in jobs} == {rule.split("__")[0] in asking}, rule


@pytest.mark.parametrize("profile", ["slurm", "workstation", "kubernetes"])
def test_no_gpus_is_one_line(tmp_path: Path, profile: str) -> None:
    said = plan(tmp_path, load_config("librispeech"), profile, "--resources", "gpu=0")
    asked = {job["gpu"] for jobs in resources(said).values() for job in jobs if "gpu" in job}
    assert asked == {"0"}


def test_a_model_of_gpu_is_asked_for_by_jobs_of_gpus_alone(tmp_path: Path) -> None:
    said = plan(
        tmp_path, load_config("librispeech"), "slurm", "--default-resources", "gpu_model=a100"
    )
    for rule, jobs in resources(said).items():
        for job in jobs:
            assert job.get("gpu_model") == ("a100" if "gpu" in job else None), rule


def test_no_gpus_have_no_model(tmp_path: Path) -> None:
    model = ("--default-resources", "gpu_model=a100", "--resources", "gpu=0")
    said = resources(plan(tmp_path, load_config("librispeech"), "slurm", *model))
    assert not [rule for rule, jobs in said.items() for job in jobs if "gpu_model" in job]


def test_what_a_job_asks_for_follows_from_its_input(tmp_path: Path) -> None:
    config = load_config("librispeech")
    for corpus in config["corpora"].values():
        corpus |= {"root": str(tmp_path), "shards": 2}
    config = changed(config, "conversion", ...)
    manifests = tmp_path / "results" / config["run"] / "manifests"
    for corpus in config["corpora"]:
        (manifests / corpus).mkdir(parents=True)
        for name in (f"{corpus}.tsv", f"{corpus}.recordings.tsv", f"{corpus}.rejected.tsv"):
            (manifests / name).write_text("x")
        (manifests / corpus / "0000.tsv").write_text("x" * 1_000_000)
        (manifests / corpus / "0001.tsv").write_text("x" * 3_000_000)
    said = resources(plan(tmp_path, config, "slurm"))
    dumps = sorted(int(job["runtime"]) for job in said["dump_features"])
    # 20 minutes, and 360 for each MB of the manifest; a dump's memory does not grow.
    assert sorted(set(dumps)) == [380, 1100]
    assert {job["mem_mb"] for job in said["dump_features"]} == {"8000"}
    # What is not there yet cannot be known.
    assert {job["runtime"] for job in said["prematch"]} == {"<TBD>"}


def test_memory_is_of_named_inputs_and_grows_with_the_attempt(tmp_path: Path) -> None:
    code = (ROOT / "rules" / "common.smk").read_text(encoding="utf-8")
    source = code[code.index("def sized") : code.index("# --- paths")]
    scope: dict[str, Any] = {"os": __import__("os"), "math": __import__("math")}
    exec(source, scope)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 2_000_000)
    other.write_bytes(b"x" * 500_000)
    asked = scope["sized"](100, features=3, pca=10)
    inputs = {"features": [str(one), str(other)], "pca": str(other), "code": [str(one)]}
    # 100 + 3 · 2.5 + 10 · 0.5 = 112.5
    assert asked(None, inputs, 1) == 113
    assert asked(None, inputs, 3) == 339
    assert asked(None, {"pca": []}, 1) == 100


def test_profiles_name_only_rules_that_exist() -> None:
    rules = set()
    for file in (ROOT / "rules").glob("*.smk"):
        rules |= set(re.findall(r"^ *(?:use )?rule (\w+)", file.read_text(), re.MULTILINE))
    for name in PROFILES:
        text = (ROOT / "profiles" / name / "profile.v9+.yaml").read_text(encoding="utf-8")
        profile = yaml.safe_load(text)
        for key in ("set-threads", "set-resources"):
            for each in profile.get(key, []):
                assert re.split("[:=]", each)[0] in rules, f"{name}: {each}"

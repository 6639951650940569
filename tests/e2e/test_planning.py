"""A run's own times, read back by `etaflow plan`, give the total that the run had."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from etaflow.planning.table import duration
from tests.planning_tools import plan
from tests.workflow_tools import snakemake, untrained_config

pytestmark = pytest.mark.slow


def tiny_config() -> dict[str, Any]:
    """Features, embeddings and an Eta model of a corpus of 4 speakers."""
    config = untrained_config()
    kept = ("seed", "corpora", "models", "ssl", "eta", "prematch")
    config = {"run": "tiny"} | {key: config[key] for key in kept}
    del config["corpora"]["mini-voices"]
    config["corpora"]["mini"] |= {"speakers": 4, "sentences": 4, "shards": 2}
    del config["ssl"]["wavlm-tiny"]["together"]
    config["eta"]["mini"]["pca"] = 2
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    folder.mkdir()
    snakemake(folder, tiny_config(), "eta")
    return folder


def seconds_of(run: Path, rule: str) -> float:
    total = 0.0
    for file in (run / "benchmarks/tiny" / rule).rglob("*.tsv"):
        with file.open(newline="") as stream:
            total += float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    return total


def cells_of(shown: str, rule: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.startswith(f"{rule} ")]
    return re.split(r"\s{2,}", line)


def test_a_run_is_planned_to_take_what_it_took(run: Path) -> None:
    for stage in ("features", "embeddings", "eta"):
        shutil.rmtree(run / "results/tiny" / stage)
    before = sorted(path for path in run.rglob("*") if ".snakemake" not in path.parts)
    shown, _ = plan(run, tiny_config())
    assert sorted(path for path in run.rglob("*") if ".snakemake" not in path.parts) == before
    for rule in ("dump_features", "embed_speakers", "fit_pca", "fit_eta", "gather_embeddings"):
        assert cells_of(shown, rule)[3] == f"{duration(seconds_of(run, rule))} CPU"
    assert "2 finished jobs of this run, benchmarks/tiny/dump_features/mini/wavlm-tiny-l3" in shown
    # Amounts are those of the manifests.
    assert re.search(r"^dump_features .* manifests +\[\d\]$", shown, re.MULTILINE)
    assert "fetch_corpus" not in shown
    # What nothing was measured of is not given a time.
    assert cells_of(shown, "plot_scree")[3] == "not measured"


def test_a_time_of_another_config_is_no_rate(run: Path) -> None:
    config = tiny_config()
    config["eta"]["mini"]["ridge"] = 0.5
    shown, _ = plan(run, config)
    assert cells_of(shown, "fit_eta")[3] == "not measured"
    assert cells_of(shown, "fit_pca")[3].endswith(" CPU")


def test_a_gpu_is_not_planned_by_what_a_cpu_took(run: Path) -> None:
    shown, _ = plan(run, tiny_config(), "--workflow-profile", str(GPU_PROFILE))
    assert cells_of(shown, "dump_features")[3].endswith(" CPU, GPU not measured")
    assert "no GPU rate is known of dump_features, embed_speakers" in shown


GPU_PROFILE = Path(__file__).resolve().parents[2] / "profiles" / "workstation"

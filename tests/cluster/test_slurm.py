"""The chain on a real SLURM, through the profile that users edit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.cluster.slurm import NODES, Cluster, jobs, running, wait_until, why_not
from tests.workflow_tools import ROOT, planned, small_config

pytestmark = pytest.mark.slow

# There is no accounting to ask; and the question is put more often than on a shared cluster.
HURRY = ["--slurm-status-command", "squeue"]
HURRY += ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"]


# A training on both nodes, as the profile says how.
TWO_NODES = ["--set-resources", "train_vocoder:nodes=2", "train_vocoder:gpu=2"]
TWO_NODES += ["train_vocoder:tasks=2", "train_vocoder:tasks_per_gpu=0", "train_vocoder:mpi=srun"]
TWO_NODES += ["train_vocoder:slurm_extra='--gpus-per-node=1'"]


def chain() -> dict[str, Any]:
    """From recordings to scores: what runs in a few minutes."""
    config = small_config()
    for section in ("sweep", "probe"):
        del config[section]
    del config["conversion"]["references"]
    config["corpora"]["mini"] |= {"speakers": 4, "shards": 2}
    config["corpora"]["mini"]["split"]["test_fraction"] = 0.5
    config["conversion"]["systems"] = {
        name: config["conversion"]["systems"][name] for name in ("original", "knnvc-eta")
    }
    return config


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "daemons")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with the profiles, as a clone has them, and the node's Python."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    source = (ROOT / "tests" / "cluster" / "python_without_gpu.py").read_text()
    python.write_text(f"#!{sys.executable}\n{source}")
    python.chmod(0o755)
    return tmp_path


def start(
    place: Path, config: dict[str, Any], *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """Snakemake with the SLURM profile."""
    (place / "test.yaml").write_text(yaml.safe_dump(config))
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = (place / "said.txt").open("w")
    return subprocess.Popen(
        [
            *("snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "test.yaml"),
            *("--workflow-profile", str(place / "profiles" / "slurm"), "--local-cores", "2"),
            *("--slurm-no-account", "--latency-wait", "5", *HURRY, *arguments),
        ],
        cwd=place,
        env=dict(os.environ, PATH=path, RECORDS=str(place), **environment),
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(place: Path) -> str:
    return (place / "said.txt").read_text()


def scripts(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "scripts.jsonl").read_text().splitlines()]


def has_begun(place: Path, script: str) -> bool:
    file = place / "scripts.jsonl"
    return file.exists() and any(one["script"] == script for one in scripts(place))


def end_jobs() -> None:
    """What the README says to do when Snakemake itself was killed."""
    subprocess.run(["scancel", *running()], check=True)
    wait_until(lambda: not running(), "no job is left")


def test_the_chain_on_a_cluster(cluster: Cluster, place: Path) -> None:
    """Cancelled, killed and completed; what each job was given is read back from SLURM."""
    config = chain()
    process = start(place, config, "conversion")
    wait_until(lambda: has_begun(place, "dump_features"), "features are made", 300)
    assert running()
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    wait_until(lambda: not running(), "no job outlives the workflow that was cancelled", 60)

    process = start(place, config, "conversion")
    wait_until(lambda: has_begun(place, "train_vocoder"), "a vocoder is trained", 600)
    process.kill()
    process.wait()
    end_jobs()
    begun = len(scripts(place))
    start(place, config, "--unlock").wait()

    process = start(place, config, "conversion", *TWO_NODES, HUNGRY="collect_metrics")
    assert process.wait() == 0, said(place)
    assert planned(place, config, "conversion") == {}
    metrics = pd.read_csv(place / "results" / "small" / "conversion" / "metrics.tsv", sep="\t")
    assert set(metrics["system"]) == set(config["conversion"]["systems"])
    done = scripts(place)
    again = {one["script"] for one in done[begun:]}
    # What had ended before the kill was not run again.
    assert again.isdisjoint({"fetch_corpus", "fetch_model", "build_manifest", "dump_features"})

    # What fetches ran where Snakemake does, the rest on the node.
    local = {"fetch_corpus", "fetch_model", "gather_embeddings"}
    assert {one["script"] for one in done if one["job"] is None} == local
    known = {job["JobId"]: job for job in jobs()}
    on_gpus = {"dump_features", "embed_speakers", "prematch", "train_vocoder"}
    on_gpus |= {"convert", "transcribe", "score_conversion"}
    on_node = [one for one in done if one["job"] is not None]
    others = {"build_manifest", "fit_pca", "fit_eta", "collect_metrics"}
    assert {one["script"] for one in on_node} == on_gpus | others
    for one in on_node:
        job, gpus = known[one["job"]], int(one["script"] in on_gpus)
        # As SLURM knows it, and as the job sees it.
        if one["gpus"] == 2:
            assert job["TresPerJob"] == "gres:gpu:2"
            assert job["NumNodes"] == "2"
            gpus = 2
        else:
            assert job.get("TresPerJob") == ("gres:gpu:1" if gpus else None), one
        assert job["Partition"] == ("gpu" if gpus else "cpu"), one
        assert one["devices"] == (f"{one['node']}-0" if gpus else None), one
        assert one["node"] in NODES
        assert one["gpus"] == gpus, one

    # The training went on in two processes, one on each node, and said so in one log.
    trained = [one for one in done if one["script"] == "train_vocoder"]
    assert [one["gpus"] for one in trained] == [1] * (len(trained) - 2) + [2, 2]
    assert sorted(one["node"] for one in trained[-2:]) == list(NODES)

    # The job that took too much memory was killed for it, and tried again with twice as much.
    tries = [one for one in done if one["script"] == "collect_metrics"]
    assert [one["hungry"] for one in tries] == [True, False]
    first, second = (known[one["job"]] for one in tries)
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    log = place / ".snakemake" / "slurm_logs" / "rule_collect_metrics" / f"{first['JobId']}.log"
    assert "exceeded memory limit" in log.read_text()
    assert int(second["MinMemoryNode"][:-1]) == 2 * int(first["MinMemoryNode"][:-1])


def test_a_job_that_is_given_a_gpu_and_sees_none_fails_and_says_so(
    cluster: Cluster, place: Path
) -> None:
    """The GPUs here are none, so a script that is run as it is finds nothing."""
    (place / "bin" / "python").unlink()
    config = chain()
    process = start(place, config, "features", "--retries", "0")
    assert process.wait() != 0
    (log,) = place.glob("logs/small/dump_features/mini/*/0000.log")
    said_so = log.read_text()
    assert "this job was given 1 GPU(s) but PyTorch" in said_so
    assert "sees none (CUDA_VISIBLE_DEVICES='0'" in said_so
    assert not list(place.glob("results/small/features/**/*.h5"))
    assert not running()
    # The same on nodes without GPUs: one line of the profile.
    before = len(jobs())
    process = start(place, config, "features", "--retries", "0", "--resources", "gpu=0")
    assert process.wait() == 0, said(place)
    submitted = jobs()[before:]
    assert len(submitted) == 2
    assert {(job["Partition"], job.get("TresPerJob")) for job in submitted} == {("cpu", None)}

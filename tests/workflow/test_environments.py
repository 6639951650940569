"""The conda environments: what the lock has, and all that the rules' scripts import.

Nothing here runs conda or asks a package index. An environment is emulated: a folder with links to
the installed packages that it lists, in a Python that sees no others.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etaflow.audio import write_audio
from etaflow.manifest import write_table
from tests.environments import (
    ENVS,
    FROM_CONDA,
    PYTHON,
    REPLACED,
    contents,
    environments,
    families,
    imported,
    lock,
    packages,
)
from tests.workflow_tools import ROOT

FAMILIES = ["corpora", "evaluation", "report", "speech"]
# Runs scripts with `--help`, and says of each that fails how.
HELP = """
import runpy, sys, traceback
failed = []
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            failed.append(f"{script}: {end.code}")
    except BaseException:
        failed.append(f"{script}: {traceback.format_exc(limit=-1)}")
print("\\n".join(failed), file=sys.stderr)
sys.exit(bool(failed))
"""


def described(family: str) -> tuple[list[str], list[str]]:
    """What conda installs, and what pip installs at which version, before and after."""
    environment = yaml.safe_load((ENVS / f"{family}.yaml").read_text(encoding="utf-8"))
    *from_conda, by_pip = environment["dependencies"]
    deploy = (ENVS / f"{family}.post-deploy.sh").read_text(encoding="utf-8").splitlines()
    alone = [line.split()[-1] for line in deploy if line.startswith("pip install --no-deps ")]
    assert alone.pop() == "."
    return from_conda, [*by_pip["pip"], *alone]


def test_the_files_are_those_that_rules_name_and_were_written_from_the_lock() -> None:
    assert list(families()) == FAMILIES
    expected = environments()
    assert {path.name for path in ENVS.iterdir()} == {"requirements.txt", *expected}
    for name, text in expected.items():
        found = (ENVS / name).read_text(encoding="utf-8")
        assert found == text, f"{name}: run python -m tests.environments"


def test_every_script_but_those_for_a_terminal_belongs_to_one_family() -> None:
    scripts = [script for each in families().values() for script in each]
    assert len(scripts) == len(set(scripts))
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} - set(scripts) == {
        "show_metrics"
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_pins_are_those_of_the_lock_and_of_what_is_installed(family: str) -> None:
    from_conda, by_pip = described(family)
    assert from_conda == [f"python={PYTHON}", "pip", *FROM_CONDA.values()]
    assert set(by_pip) <= set(lock().values())
    assert len(by_pip) == len(set(by_pip))
    for line in by_pip:
        pin = Requirement(line)
        assert pin.specifier.contains(distribution(pin.name).version), line


@pytest.mark.parametrize("family", FAMILIES)
def test_what_packages_require_is_there_in_a_version_that_they_take(family: str) -> None:
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, described(family)[1])
    }
    for name in pins:
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            other = canonicalize_name(needed.name)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            if other not in REPLACED and other not in FROM_CONDA:
                assert needed.specifier.contains(pins[other], prereleases=True), (name, line)


def test_reports_do_without_pytorch_and_its_cuda() -> None:
    for name in ("torch", "triton", "nvidia-cudnn-cu13", "transformers", "accelerate"):
        assert name in packages(families()["speech"])
        assert name not in packages(families()["report"])


def test_a_package_imported_at_second_hand_or_in_a_function_is_found() -> None:
    # plot_speakers imports etaflow.figures.umap, whose function imports umap.
    assert "umap" in imported("plot_speakers")
    assert "umap" not in imported("plot_training")
    listed = set(described("report")[1])
    assert listed >= {lock()["umap-learn"], lock()["pynndescent"]}
    without = contents("report", ["plot_training"])["report.yaml"]
    assert lock()["matplotlib"] in without
    assert lock()["umap-learn"] not in without


def installed_without_conda(family: str, folder: Path) -> Path:
    """A folder with links to the installed packages of a family, and setuptools."""
    names = {canonicalize_name(Requirement(line).name) for line in described(family)[1]}
    site = distribution("numpy").locate_file("")
    owners: dict[str, set[str]] = {}  # of files and folders
    for each in distributions(path=[str(site)]):
        name = canonicalize_name(each.metadata["Name"])
        for file in (each.read_text("RECORD") or "").splitlines():
            parts = file.partition(",")[0].strip('"').split("/")
            if ".." not in parts and "__pycache__" not in parts:
                for depth in range(1, len(parts) + 1):
                    owners.setdefault("/".join(parts[:depth]), set()).add(name)
    folder.mkdir()
    shared = {""}  # folders that other packages have files in, like that of NVIDIA's libraries
    for place in sorted(owners):
        if place.rpartition("/")[0] in shared and owners[place] & (names | FROM_CONDA.keys()):
            if owners[place] <= names | FROM_CONDA.keys():
                (folder / place).symlink_to(f"{site}/{place}")
            else:
                (folder / place).mkdir()
                shared.add(place)
    return folder


def run_in(environment: Path, *command: Any, folder: Path) -> None:
    # -S: without the packages of this Python.
    done = subprocess.run(
        [sys.executable, "-S", *map(str, command)],
        env={**os.environ, "PYTHONPATH": f"{environment}:{ROOT}"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_a_rule(family: str, environment: Path, folder: Path) -> Path:
    """What a quick job of a family makes, made in its environment."""

    def script(name: str, *options: Any) -> None:
        run_in(environment, ROOT / "scripts" / f"{name}.py", *options, folder=folder)

    output = folder / "output"
    if family == "corpora":
        entry = {"kind": "mini", "speakers": 2, "sentences": 1, "seed": 0}
        options = ("--config", json.dumps(entry), "--root", folder / "mini", "--output", output)
        script("fetch_corpus", *options)
    elif family == "speech":
        entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
        output = folder / "tiny" / "model.json"
        script("fetch_model", "--name", "tiny", "--config", json.dumps(entry), "--output", output)
    elif family == "evaluation":
        noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
        write_audio(folder / "a.wav", noise)
        row = {"utterance_id": "a", "path": str(folder / "a.wav"), "text": "five"}
        write_table(pd.DataFrame([row]), folder / "converted.tsv")
        entry = {"engine": "pocketsphinx", "grammar": "mini"}
        options = ("--config", json.dumps(entry), "--converted", folder / "converted.tsv")
        script("transcribe", *options, "--output", output)
    else:
        rows = [("train/loss", 1, 2.0), ("train/loss", 2, 1.0), ("valid/loss", 2, 1.5)]
        table = pd.DataFrame(rows, columns=["metric", "step", "value"])[["step", "metric", "value"]]
        write_table(table, folder / "metrics.tsv")
        (folder / "model.json").write_text('{"weights": "trained"}', encoding="utf-8")
        script("plot_training", folder / "metrics.tsv", "--output", output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_scripts_run_with_the_packages_of_their_environment(family: str, tmp_path: Path) -> None:
    environment = installed_without_conda(family, tmp_path / "env")
    scripts = [f"{ROOT}/scripts/{script}.py" for script in families()[family]]
    run_in(environment, "-c", HELP, *scripts, folder=tmp_path)
    assert run_a_rule(family, environment, tmp_path).stat().st_size > 0


@pytest.mark.slow
def test_an_environment_holds_what_it_lists_and_nothing_else(tmp_path: Path) -> None:
    environment = installed_without_conda("report", tmp_path / "env")
    run_in(environment, "-c", "import umap, matplotlib", folder=tmp_path)
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run_in(environment, "-c", "import torch", folder=tmp_path)
    with pytest.raises(AssertionError, match="No module named 'snakemake'"):
        run_in(environment, "-c", "import snakemake", folder=tmp_path)

"""Models of the bundle that comes with etaflow, as the workflow sees them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_tools import ROOT, load_config, planned, snakemake

PARTS = ("etaflow", "rules", "scripts", "config", "profiles", "envs", "Snakefile")
TARGET = "resources/models/mine/model.json"


@pytest.fixture
def project(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project that comes with a small bundle."""
    root = tmp_path / "project"
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (root / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, root / name)
    shutil.rmtree(root / "etaflow/bundled", ignore_errors=True)
    shutil.copytree(bundle, root / "etaflow/bundled")
    monkeypatch.setenv("PYTHONPATH", str(root))
    return root


def with_model(architecture: str) -> dict[str, Any]:
    config = load_config("knnvc-pretrained")
    config["models"]["mine"] = {"source": "package", "architecture": architecture}
    return config


@pytest.mark.slow
def test_other_weights_of_the_package_are_seen(project: Path, tmp_path: Path) -> None:
    config = with_model("etaflow-vocoder")
    snakemake(tmp_path, config, TARGET, root=project)
    before = json.loads((tmp_path / TARGET).read_text(encoding="utf-8"))
    assert before["path"] == "."
    assert planned(tmp_path, config, TARGET, root=project) == {}
    written = project / "etaflow/bundled/vocoder/config.json"
    written.write_text(written.read_text().replace('"step": 9', '"step": 10'))
    assert planned(tmp_path, config, TARGET, root=project) == {"fetch_model": 1}
    snakemake(tmp_path, config, TARGET, root=project)
    after = json.loads((tmp_path / TARGET).read_text(encoding="utf-8"))
    assert after.pop("revision") != before.pop("revision")
    assert after == before
    # A fresh checkout writes the files anew, with other dates.
    for file in (project / "etaflow/bundled").rglob("*"):
        file.touch()
    assert planned(tmp_path, config, TARGET, root=project) == {}


@pytest.mark.slow
def test_a_project_without_them_says_so(project: Path, tmp_path: Path) -> None:
    (project / "etaflow/bundled/config.json").unlink()
    config = with_model("wavlm")
    output = snakemake(tmp_path, config, TARGET, "--dry-run", root=project, ok=False)
    assert "models.mine: " in output
    assert "installed without the models that come with it" in output

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from etaflow import fetching
from etaflow.fetching import fetch_model
from etaflow.models import ModelError, read_model_info, worst_weights


def test_a_random_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def weights(seed: int, name: str):
        entry = {"source": "random", "architecture": "wavlm-tiny", "seed": seed}
        info = fetch_model("m", entry, tmp_path / name)
        assert (info.weights, info.revision) == ("untrained", f"seed-{seed}")
        return load_file(tmp_path / name / "model.safetensors")

    one, again, other = weights(0, "a"), weights(0, "b"), weights(1, "c")
    key = "encoder.layers.0.attention.q_proj.weight"
    assert (one[key] == again[key]).all()
    assert not (one[key] == other[key]).all()


def test_a_local_folder_is_fingerprinted_not_copied(tmp_path: Path) -> None:
    files = tmp_path / "mine"
    files.mkdir()
    (files / "weights").write_text("1")
    entry = {"source": "path", "architecture": "ecapa", "path": str(files), "weights": "trained"}
    first = fetch_model("m", entry, tmp_path / "m")
    assert read_model_info(tmp_path / "m") == (first, files)
    (files / "weights").write_text("2")
    assert fetch_model("m", entry, tmp_path / "m").revision != first.revision


def test_a_package_has_its_version_as_revision(tmp_path: Path) -> None:
    info = fetch_model("r", {"source": "package", "architecture": "resemblyzer"}, tmp_path / "r")
    assert (info.weights, info.revision) == ("published", "0.1.4")
    assert json.loads((tmp_path / "r/model.json").read_text())["name"] == "r"


def test_one_model_is_fetched_once_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workflows that share resources would write, and remove, the same unfinished folder."""
    refused = []

    def fetch_again(entry: Any, folder: Path) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".m.lock", blocking=False).acquire()
        refused.append(folder.name)

    monkeypatch.setattr(fetching, "_write_random_ssl", fetch_again)
    entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    fetch_model("m", entry, tmp_path / "m")
    assert refused == [".m.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_cannot_be_fetched_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no random 'wavlm-huge'; there is wavlm-tiny"):
        fetch_model(
            "m", {"source": "random", "architecture": "wavlm-huge", "seed": 0}, tmp_path / "m"
        )
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        fetch_model(
            "m",
            {"source": "path", "architecture": "x", "path": str(tmp_path / "nowhere")},
            tmp_path / "m",
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        read_model_info(tmp_path)


def test_the_worst_label_wins() -> None:
    assert worst_weights(["trained", "untrained", "published"]) == "untrained"
    assert worst_weights(["trained", "published"]) == "published"

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from etaflow.atomic import atomic_directory, atomic_file, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.txt"
    with atomic_file(path) as part:
        part.write_text("old")

    def interrupted() -> None:
        with atomic_file(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["x.txt"]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "d") as part:
        (part / "one").write_text("1")
    with pytest.raises(RuntimeError, match="no"), atomic_directory(tmp_path / "d") as part:
        raise RuntimeError("no")
    assert [file.name for file in (tmp_path / "d").iterdir()] == ["one"]
    with atomic_directory(tmp_path / "d") as part:
        (part / "two").write_text("2")
    assert [file.name for file in tmp_path.iterdir()] == ["d"]
    assert [file.name for file in (tmp_path / "d").iterdir()] == ["two"]


def test_files_of_their_owner_alone_become_ordinary_ones(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    ordinary = (tmp_path / "ordinary").stat().st_mode
    with atomic_file(tmp_path / "file") as part:
        part.touch(0o600)
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "program").touch(0o700)
        save_file({"x": np.zeros(2)}, folder / "weights.safetensors")
    assert (tmp_path / "file").stat().st_mode == ordinary
    assert (tmp_path / "folder/weights.safetensors").stat().st_mode == ordinary
    assert (tmp_path / "folder/inner/program").stat().st_mode == ordinary | 0o100


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_whatever_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        with atomic_directory(tmp_path / "d") as part, atomic_file(part / "x") as file:
            file.write_text("half")
            raise RuntimeError("a library's")

    with pytest.raises(RuntimeError) as caught:
        failing()
    assert not hasattr(caught.value, "__notes__")
    full = shutil.disk_usage(tmp_path)._replace(free=12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(RuntimeError) as caught:
        failing()
    assert caught.value.__notes__ == [
        f"{tmp_path / '.d.part' / 'x'}: not written, its disk is full (12 bytes are free); make "
        "room and run again"
    ]
    assert list(tmp_path.iterdir()) == []

"""Two workflows at once: in one folder, and in two that share what they fetch."""

from pathlib import Path

import pytest

from tests.faults.workflow import Running, copied, results, tiny_config
from tests.workflow_tools import snakemake

pytestmark = pytest.mark.slow

FETCHED = (
    "resources/models/wavlm-tiny/model.json",
    "resources/models/resemblyzer/model.json",
    "resources/corpora/mini/fetched.json",
)


def test_the_second_in_a_folder_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path, "separators/sepformer/*")
    target = "results/tiny/separators/sepformer/model.json"
    with Running(folder, tiny_config(), target) as first:
        assert first.wait_for(["train_separator"])
        output = snakemake(folder, tiny_config(), target, ok=False)
        assert "Directory cannot be locked" in output
        status, printed = first.finish()
    assert status == 0, printed
    assert results(folder) == results(undisturbed)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_two_folders_that_share_resources_fetch_at_once(undisturbed: Path, tmp_path: Path) -> None:
    for name in ("shared", "one", "other"):
        (tmp_path / name).mkdir()
    for name in ("one", "other"):
        (tmp_path / name / "resources").symlink_to(tmp_path / "shared")
    config = tiny_config()
    with (
        Running(tmp_path / "one", config, *FETCHED) as one,
        Running(tmp_path / "other", config, *FETCHED) as other,
    ):
        ends = [running.finish() for running in (one, other)]
    assert [status for status, _ in ends] == [0, 0], ends
    assert contents(tmp_path / "shared") == contents(undisturbed / "resources")

"""A clock that jumps in mid-run: the same results, or an error that says so."""

import os
from pathlib import Path

import pytest

from tests.faults.workflow import copied, results, tiny_config
from tests.workflow_tools import planned, snakemake

pytestmark = pytest.mark.slow

DAY = 24 * 3600
FEATURES, PREMATCHED = (f"{kind}/mini/wavlm-tiny-l3/0000.h5" for kind in ("features", "prematch"))
TARGET = f"results/tiny/{PREMATCHED}"


def shift(path: Path, seconds: float) -> None:
    """Date a file as if the clock had gone by so much more, or less."""
    times = path.stat()
    os.utime(path, (times.st_atime + seconds, times.st_mtime + seconds))


def test_what_was_made_before_the_jump_lies_in_the_past(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path, PREMATCHED)
    for path in (folder / "results").rglob("*"):
        shift(path, -DAY)
    snakemake(folder, tiny_config(), TARGET)
    assert results(folder) == results(undisturbed)
    assert planned(folder, tiny_config(), TARGET) == {}


def test_what_was_made_before_the_jump_lies_in_the_future(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder = copied(undisturbed, tmp_path, PREMATCHED)
    shift(folder / "results/tiny" / FEATURES, DAY)
    output = snakemake(folder, tiny_config(), TARGET, ok=False)
    assert f"Output {TARGET} has older modification time" in output
    assert f"than input results/tiny/{FEATURES}" in output
    assert "clock skew" in output
    # The clock is right again: what lies in the future is dated now.
    (folder / "results/tiny" / FEATURES).touch()
    snakemake(folder, tiny_config(), TARGET)
    assert results(folder) == results(undisturbed)
    assert planned(folder, tiny_config(), TARGET) == {}

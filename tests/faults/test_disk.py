"""A disk that is full, or cannot be written to: what was there stays, and the command completes."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.workflow import copied, remove, results, tiny_config
from tests.workflow_tools import snakemake

pytestmark = pytest.mark.slow

# Of each kind of file one that none of the others depends on, and what is made of it again.
HDF5 = "features/mini/wavlm-tiny-l3/0000.h5"
CHECKPOINT = "separators/sepformer"
WAV = "mixtures/mini-clean/test/audio"
TABLE = "verification/trials/mini-test.tsv"
MIXTURES = "mixtures/mini-clean/test/0000.tsv"
REMOVED = (HDF5, f"{CHECKPOINT}/*", f"{WAV}/*/*", MIXTURES, "verification/trials/*")
MADE = (HDF5, f"{CHECKPOINT}/model.json", MIXTURES, TABLE)
COMMAND = (*(f"results/tiny/{name}" for name in MADE), "--keep-going")


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk of its own to fill, mounting needs root: {done.stderr.strip()}")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def disk(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the run whose results lie on a small disk."""
    folder = tmp_path_factory.mktemp("disk")
    with small_disk(folder / "results", 64):
        yield copied(undisturbed, folder)


def without(disk: Path, whole: dict[str, str]) -> dict[str, str]:
    """The results, from which what is to be made again is removed."""
    remove(disk, *REMOVED)
    left = results(disk)
    assert {Path(name).parts[0] for name in whole.keys() - left.keys()} == {
        Path(name).parts[0] for name in REMOVED
    }
    return left


def fill(disk: Path, free: int) -> Path:
    """Leave so many bytes of the disk free."""
    ballast = disk / "results/ballast"
    with ballast.open("wb") as stream:
        stream.write(bytes(shutil.disk_usage(ballast).free - free))
    return ballast


# Of nothing at all, and of too little for a checkpoint or a recording.
@pytest.mark.parametrize("free", [0, 256 << 10])
def test_a_full_disk_is_named_and_loses_nothing(undisturbed: Path, disk: Path, free: int) -> None:
    whole = results(undisturbed)
    before = without(disk, whole)
    ballast = fill(disk, free)
    output = snakemake(disk, tiny_config(), *COMMAND, ok=False)
    after = results(disk)
    ballast.unlink()
    said = [f"{Path(HDF5).parent}: no room for the features of mini that are still to be made"]
    for place in (
        "work/train_separator/sepformer/",
        WAV,
        *([TABLE.removesuffix(".tsv")] if free == 0 else []),
    ):
        said.append(
            rf"{place}\S*: not written, its disk is full \([\d,]+ bytes are free\); make room"
        )
    for text in said:
        assert re.search(f"^(etaflow.*: )?results/tiny/{text}", output, flags=re.MULTILINE), text
    # What is there is as before, or whole.
    assert before.items() <= after.items() <= whole.items()
    assert not {HDF5, f"{CHECKPOINT}/model.json", MIXTURES} & after.keys()
    snakemake(disk, tiny_config(), *COMMAND)
    assert results(disk) == whole


def test_a_disk_that_cannot_be_written_to(undisturbed: Path, disk: Path) -> None:
    whole = results(undisturbed)
    before = without(disk, whole)
    mount("-o", "remount,ro", str(disk / "results"))
    output = snakemake(disk, tiny_config(), *COMMAND, ok=False)
    mount("-o", "remount,rw", str(disk / "results"))
    # Snakemake itself ends over the first job, whose output it wants to remove.
    assert "Read-only file system: 'results/tiny/" in output
    assert results(disk) == before
    snakemake(disk, tiny_config(), *COMMAND)
    assert results(disk) == whole

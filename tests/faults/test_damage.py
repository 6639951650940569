"""Files that are damaged, cut short or gone: named, with what to do, and that does it."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.workflow import copied, remove, results, tiny_config
from tests.workflow_tools import snakemake

pytestmark = pytest.mark.slow

FEATURES, PREMATCHED = (f"{kind}/mini/wavlm-tiny-l3/0000.h5" for kind in ("features", "prematch"))
EMBEDDINGS, PCA = "embeddings/mini/resemblyzer.h5", "eta/mini/pca.safetensors"


def flip(path: Path) -> None:
    """Change bytes here and there in the middle half of a file."""
    content = bytearray(path.read_bytes())
    size = len(content)
    for place in range(size // 4, 3 * size // 4, size // 50):
        content[place] ^= 255
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damages", [(flip, cut), (cut, flip)])
def test_a_damaged_shard_is_named_and_made_again(
    undisturbed: Path, tmp_path: Path, damages: Any
) -> None:
    folder = copied(undisturbed, tmp_path, PREMATCHED, PCA)
    command = [f"results/tiny/{name}" for name in (PREMATCHED, PCA)]
    for damage, name in zip(damages, (FEATURES, EMBEDDINGS), strict=True):
        damage(folder / "results/tiny" / name)
    output = snakemake(folder, tiny_config(), *command, "--keep-going", ok=False)
    for name in (FEATURES, EMBEDDINGS):
        (line,) = {
            line
            for line in output.splitlines()
            if line.startswith("etaflow.store.files") and name in line
        }
        assert "damaged" in line or "not a readable HDF5 file" in line
        assert line.endswith("delete it and run again")
    for name in (PREMATCHED, PCA):
        assert not (folder / "results/tiny" / name).exists()
    remove(folder, FEATURES, EMBEDDINGS)
    snakemake(folder, tiny_config(), *command)
    assert results(folder) == results(undisturbed)

"""What a run is made from: downloads that break or are wrong, recordings that vanish."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from etaflow.manifest import read_manifest
from etaflow.store import FeatureStore
from tests.faults.workflow import Running, results, tiny_config
from tests.file_server import serving
from tests.workflow_tools import changed, load_config, snakemake

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 40
FEATURES = "results/tiny/features/mini/wavlm-tiny-l3/0000.h5"


def test_a_download_that_was_cut_and_one_of_a_wrong_checksum(tmp_path: Path) -> None:
    """Cut short, then killed while it waits to try again; whole, but not what the config says."""
    model = "resources/models/knnvc-prematched"
    part = tmp_path / "resources/models/.knnvc-prematched.part/generator.pt"
    with serving() as server:
        server.files["/g.pt"] = CONTENT
        server.cut_after = 4_000
        entry = {"source": "url", "architecture": "knnvc-hifigan", "url": f"{server.url}/g.pt"}
        config = load_config("knnvc-pretrained")
        config = changed(config, "models.knnvc-prematched", entry | {"sha256": "0" * 64})
        with Running(tmp_path, config, f"{model}/model.json") as running:
            while not (part.is_file() and part.stat().st_size == 4_000):
                assert running.process.poll() is None
                time.sleep(0.02)
            running.process.kill()
        assert not (tmp_path / model / "model.json").exists()
        server.cut_after = None
        server.log.clear()
        snakemake(tmp_path, config, "--unlock")
        output = snakemake(tmp_path, config, f"{model}/model.json", ok=False)
        assert [wanted for command, _, wanted in server.log if command == "GET"] == ["bytes=4000-"]
        found = hashlib.sha256(CONTENT).hexdigest()
        assert f"/g.pt: SHA-256 expected {'0' * 64}, found {found}" in output
        assert "The expected one is the config's `sha256`; what came was thrown away" in output
        assert not (tmp_path / model / "model.json").exists()
        config = changed(config, "models.knnvc-prematched", entry | {"sha256": found})
        snakemake(tmp_path, config, f"{model}/model.json")
    assert (tmp_path / model / "generator.pt").read_bytes() == CONTENT
    assert json.loads((tmp_path / model / "model.json").read_text())["revision"] == found[:16]
    left = {path.name for path in (tmp_path / "resources/models").iterdir()}
    assert left == {"knnvc-prematched"}


def folder_config(root: Path) -> dict[str, Any]:
    """The tiny config on a folder of recordings."""
    entry = {
        "kind": "folder",
        "root": str(root),
        "pattern": "(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>[^/]+)",
        "text_suffix": ".txt",
        "seed": 0,
        "split": {"by": "speaker", "test_fraction": 0.34},
        "shards": 1,
    }
    return changed(tiny_config(), "corpora.mini", entry)


def test_a_recording_that_vanishes_in_mid_run(undisturbed: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("disturbed", "other")]
    for run in runs:
        shutil.copytree(undisturbed / "resources/models", run / "resources/models")
        shutil.copytree(undisturbed / "resources/corpora/mini", run / "speech")
    run, other = runs
    recording = run / "speech/man02/a/man02-a-001.wav"
    with Running(run, folder_config(Path("speech")), FEATURES) as running:
        assert running.wait_for(["dump_features"])
        # Its libraries take seconds to load: nothing was read yet.
        recording.rename(run / "elsewhere.wav")
        status, printed = running.finish()
    assert status == 1
    assert (
        "speech/man02/a/man02-a-001.wav: gone since its manifest was made; put it back, or run "
        "`snakemake manifests`, then go on" in printed
    )
    assert not (run / FEATURES).exists()
    # Without it, as it is told.
    snakemake(run, folder_config(Path("speech")), "manifests")
    snakemake(run, folder_config(Path("speech")), FEATURES)
    ids = list(read_manifest(run / "results/tiny/manifests/mini.tsv")["utterance_id"])
    assert len(ids) == 35
    assert "man02-a-001" not in ids
    assert sorted(FeatureStore([run / FEATURES])) == sorted(ids)
    # And with it again.
    (run / "elsewhere.wav").rename(recording)
    for folder in runs:
        snakemake(folder, folder_config(Path("speech")), FEATURES)
    assert results(run) == results(other)
    assert len(FeatureStore([run / FEATURES])) == 36

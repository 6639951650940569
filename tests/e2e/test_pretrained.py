"""Nothing to train: from models that others trained to a converted file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from etaflow.cli import app
from etaflow.vocoder import Generator, GeneratorConfig
from tests.bundle_tools import upstream_checkpoint
from tests.file_server import Server, serving
from tests.workflow_tools import load_config, planned, snakemake

pytestmark = pytest.mark.slow

LAYER = 3


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorConfig(feature_dim=128, hidden_dim=8, upsample_channels=16))


def published(folder: Path, server: Server) -> dict[str, Any]:
    """The vocoder as kNN-VC publishes its own."""
    torch.save(upstream_checkpoint(generator()), folder / "g.pt")
    server.files["/v0.1/g.pt"] = (folder / "g.pt").read_bytes()
    url = f"{server.url}/v0.1/g.pt"
    return {"source": "url", "architecture": "knnvc-hifigan", "url": url, "sha256": None}


def of_another_run(folder: Path, server: Server) -> dict[str, Any]:
    """The vocoder as a run of etaflow leaves it."""
    known = {"model": "there", "revision": "seed-0", "layer": LAYER, "normalize": False}
    generator().save_pretrained(folder / "there", **known, weights="trained", step=9)
    architecture = "etaflow-vocoder"
    place = str(folder / "there")
    return {"source": "path", "architecture": architecture, "path": place, "weights": "trained"}


@pytest.mark.parametrize("vocoder", [published, of_another_run])
def test_two_files_are_converted(tmp_path: Path, server: Server, vocoder: Any) -> None:
    config = load_config("knnvc-pretrained")
    wavlm = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    config["models"] = {"wavlm-large": wavlm, "knnvc-prematched": vocoder(tmp_path, server)}
    config["vocoder"]["knnvc"]["layer"] = LAYER
    snakemake(tmp_path, config)
    assert planned(tmp_path, config) == {}
    bundle = tmp_path / "results/knnvc-pretrained/bundle"
    assert json.loads((bundle / "config.json").read_text())["weights"] == "untrained"
    assert "> **Warning: untrained weights.**" in (bundle / "README.md").read_text()
    for number, seconds in enumerate((1.03, 2)):
        noise = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds))
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
    files = [tmp_path / name for name in ("0.wav", "1.wav", "out.wav")]
    arguments = ["convert", *files[:2], "-o", files[2], "--bundle", bundle]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert "stands on untrained weights" in done.output
    assert soundfile.info(files[2]).frames == soundfile.info(files[0]).frames == 16_480
    assert np.abs(soundfile.read(files[2])[0]).max() > 0


def test_a_file_that_was_replaced_is_refused(tmp_path: Path, server: Server) -> None:
    config = load_config("knnvc-pretrained")
    config["models"]["knnvc-prematched"] = published(tmp_path, server)
    target = "resources/models/knnvc-prematched/model.json"
    snakemake(tmp_path, config, target)
    assert len(json.loads((tmp_path / "resources/checksums.json").read_text())) == 1
    server.files["/v0.1/g.pt"] += b"more"
    output = snakemake(tmp_path, config, target, "--forcerun", "fetch_model", ok=False)
    assert "recorded in resources/checksums.json" in output
    assert "SHA-256 expected" in output

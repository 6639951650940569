"""scripts/dump_features.py, run as a program."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from etaflow.audio import check_audio, read_audio, write_audio
from etaflow.manifest import COLUMNS, write_manifest
from etaflow.models import ModelError
from etaflow.ssl import SSLEncoder
from etaflow.store import FeatureStore
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import dump_features

SETTINGS = {"normalize": False, "dtype": "float32", "batch_seconds": 2, "precision": "float32"}


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The manifests of two shards, of five utterances and of none."""
    generator = np.random.default_rng(0)
    rows: list[list[Any]] = []
    for index, rate in enumerate((16_000, 16_000, 22_050, 16_000, 8_000)):
        path = tmp_path / f"{index}.wav"
        wave = generator.normal(0, 0.1, rate + 1_003 * index).astype(np.float32)
        write_audio(path, wave, rate)
        info = check_audio(path)
        rows.append([f"u{index}", "s", "0", "train", str(path), info.num_samples, rate, "", "0000"])
        rows[-1].append(info.checksum)
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "0000.tsv")
    write_manifest(pd.DataFrame([], columns=COLUMNS), folder / "0001.tsv")
    return folder


def dump(manifest: Path, model: Path, layers: list[int], folder: Path) -> Result:
    arguments = ["--config", json.dumps(SETTINGS), "--manifest", str(manifest)]
    arguments += ["--model", str(model / "model.json")]
    for layer in layers:
        output = folder / f"l{layer}" / f"{manifest.stem}.h5"
        output.parent.mkdir(parents=True, exist_ok=True)
        arguments += ["--layer", str(layer), "--output", str(output)]
    return CliRunner().invoke(dump_features.app, arguments)


def test_two_layers_and_an_empty_shard(manifests: Path, wavlm_tiny: Path, tmp_path: Path) -> None:
    for shard in ("0000", "0001"):
        result = dump(manifests / f"{shard}.tsv", wavlm_tiny, [1, 3], tmp_path)
        assert result.exit_code == 0, result.output
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, [1, 3])
    for layer in (1, 3):
        files = [tmp_path / f"l{layer}" / f"{shard}.h5" for shard in ("0000", "0001")]
        store = FeatureStore(files, expect={"layer": layer, "normalize": False})
        assert store.utterance_ids == [f"u{index}" for index in range(5)]
        for name in store:
            (expected,) = encoder.encode_layers([read_audio(tmp_path / f"{name[1:]}.wav")])
            np.testing.assert_allclose(store[name], expected[layer], atol=1e-5)


def test_room_is_asked_for_all_shards_that_are_not_begun(
    manifests: Path, wavlm_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SSLEncoder.from_pretrained(wavlm_tiny, 3)
    shutil.copy(manifests / "0000.tsv", manifests / "0002.tsv")
    outputs = [tmp_path / "l3" / "0000.h5"]
    outputs[0].parent.mkdir()
    frames = 49 + 52 + 54 + 59 + 74  # of 1 s, + 1,003 and 2,006 (22,050 Hz) samples, and so on
    shard = 128 * (frames * 4 + 5 * 16)
    counted = dump_features.bytes_to_come(manifests / "0000.tsv", outputs, encoder, "float32")
    assert counted == 2 * shard
    (tmp_path / "l3" / ".0002.h5.part").touch()  # begun: its room is taken
    counted = dump_features.bytes_to_come(manifests / "0000.tsv", outputs, encoder, "float32")
    assert counted == shard
    full = shutil.disk_usage(tmp_path)._replace(free=shard - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    result = dump(manifests / "0000.tsv", wavlm_tiny, [3], tmp_path)
    message = "no room for the features of corpus that are still to be made: 0.2 MB, 0.2 MB are"
    assert message in str(result.exception)
    assert not list(tmp_path.glob("l3/*.h5"))


def test_arguments_that_do_not_match_are_refused_before_the_model_is_loaded(
    manifests: Path, wavlm_tiny: Path, tmp_path: Path
) -> None:
    result = dump(manifests / "0000.tsv", wavlm_tiny, [1, 1], tmp_path)
    assert result.exit_code == 2
    assert "each layer once, each with an output of its own" in result.output
    assert not list(tmp_path.rglob("*.part"))


def test_a_recording_that_changed_since_its_manifest_is_named(
    manifests: Path, wavlm_tiny: Path, tmp_path: Path
) -> None:
    other = np.random.default_rng(1).normal(0, 0.1, 17_003).astype(np.float32)
    write_audio(tmp_path / "1.wav", other)  # as long as the one before
    result = dump(manifests / "0000.tsv", wavlm_tiny, [3], tmp_path)
    assert "1.wav: changed since its manifest was made" in str(result.exception)


def test_frames_that_what_reads_them_would_misplace_are_refused(
    manifests: Path, wavlm_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump_features, "FIELD", 480)
    result = dump(manifests / "0000.tsv", wavlm_tiny, [1], tmp_path)
    assert isinstance(result.exception, ModelError)
    assert "a frame sees 400 samples; what reads stored features expects 480" in str(
        result.exception
    )
    assert not list(tmp_path.rglob("*.h5"))

"""`scripts/embed_speakers.py` and `scripts/gather_embeddings.py`, from shards to a corpus."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from etaflow.audio import file_checksum, read_audio
from etaflow.manifest import COLUMNS, write_manifest
from etaflow.speaker import load_speaker_encoder
from etaflow.store import Embeddings
from tests.unit.test_speaker import tdnn_folder
from tests.workflow_tools import ROOT

pytestmark = pytest.mark.slow


def script(name: str, *arguments: str | Path, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done.stderr


def test_shards_one_of_them_empty_become_one_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for name, speaker, length, rate, shard in (
        ("d", "s1", 30_000, 16_000, "0000"),
        ("a", "s1", 40_001, 44_100, "0000"),
        ("c", "s0", 9_000, 8_000, "0002"),
        ("b", "s2", 20_000, 16_000, "0002"),
    ):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, generator.normal(0, 0.1, length), rate)
        rows.append([name, speaker, "0", "train", str(path), length, rate, "", shard])
        rows[-1].append(file_checksum(path))
    table = pd.DataFrame(rows, columns=COLUMNS)
    model = tdnn_folder(tmp_path / "ecapa", "ecapa")
    outputs = []
    for shard in ("0000", "0001", "0002"):
        manifest = tmp_path / f"{shard}.tsv"
        write_manifest(table[table["shard"] == shard], manifest)
        outputs.append(tmp_path / "out" / f"{shard}.h5")
        arguments = ("--manifest", manifest, "--model", model / "model.json")
        script("embed_speakers.py", *arguments, "--output", outputs[-1])
    gathered = tmp_path / "out.h5"
    script("gather_embeddings.py", *outputs, "--output", gathered)
    embeddings = Embeddings.read(gathered)
    assert embeddings.utterance_ids == ["a", "b", "c", "d"]
    assert embeddings.speaker_ids == ["s1", "s2", "s0", "s1"]
    assert (embeddings.encoder, embeddings.weights) == ("ecapa", "untrained")
    encoder = load_speaker_encoder(model)
    for name, vector in zip("abcd", embeddings.vectors, strict=True):
        alone = encoder.embed([read_audio(tmp_path / f"{name}.wav")])[0]
        assert np.linalg.norm(vector - alone) < 1e-5 * np.linalg.norm(alone)

    damaged = bytearray(outputs[2].read_bytes())
    damaged[damaged.index(embeddings.vectors[1].tobytes())] ^= 1
    outputs[2].write_bytes(damaged)
    gathered.unlink()
    log = script("gather_embeddings.py", *outputs, "--output", gathered, ok=False)
    assert f"{outputs[2]}: damaged (the embedding of b fails its checksum); delete it" in log
    assert not gathered.exists()

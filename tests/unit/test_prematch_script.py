"""scripts/prematch.py, run as a program."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from etaflow.manifest import COLUMNS, write_manifest
from etaflow.store import FeatureMeta, FeatureStore, FeatureWriter
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import prematch

META = FeatureMeta("random", "0" * 40, 6, False, 16_000, 320)
# Speaker, split, frames. Only `two` and `three` can be prematched with four neighbours.
UTTERANCES = {
    "a": ("two", "train", 30),
    "b": ("alone", "train", 20),
    "c": ("two", "train", 12),
    "d": ("alone", "test", 20),
    "e": ("short", "train", 9),
    "f": ("short", "train", 3),
    "g": ("three", "train", 8),
    "h": ("three", "train", 7),
    "i": ("two", "test", 40),
    "j": ("three", "train", 6),
}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A folder with the manifest and the features of a shard."""
    generator = np.random.default_rng(0)
    names, (speakers, _, frames) = list(UTTERANCES), zip(*UTTERANCES.values(), strict=True)
    samples = [320 * count + 80 for count in frames]
    path = tmp_path / "0000.h5"
    with FeatureWriter(path, META, names, speakers, samples, frames, 16, "float32") as writer:
        for name, count in zip(names, frames, strict=True):
            writer.write(name, generator.normal(1, 1, (count, 16)).astype(np.float32))
    rows = [
        [name, speaker, "0", split, f"{name}.wav", 320 * count + 80, 16_000, "", "0000", "0"]
        for name, (speaker, split, count) in UTTERANCES.items()
    ]
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path / "0000.tsv")
    return tmp_path


def run(shard: Path, topk: int = 4) -> Result:
    arguments = ["--config", json.dumps({"topk": topk, "dtype": "float32"})]
    arguments += ["--manifest", str(shard / "0000.tsv"), "--features", str(shard / "0000.h5")]
    return CliRunner().invoke(prematch.app, [*arguments, "--output", str(shard / "made.h5")])


def test_each_frame_is_the_mean_of_its_neighbours_in_other_training_utterances(
    shard: Path,
) -> None:
    result = run(shard)
    assert result.exit_code == 0, result.output
    assert "2 of 4 speaker(s) left out" in result.stderr
    assert "than 4 frames in the speaker's other training utterances: alone, short" in result.stderr
    raw, made = FeatureStore([shard / "0000.h5"]), FeatureStore([shard / "made.h5"])
    assert made.utterance_ids == ["g", "h", "j", "a", "c"]
    assert made.speaker_ids == ["three", "three", "three", "two", "two"]
    assert made.meta == META
    for name, others in {"g": "hj", "h": "gj", "j": "gh", "a": "c", "c": "a"}.items():
        pool = np.concatenate([raw[other] for other in others])
        lengths = np.linalg.norm(raw[name], axis=1)[:, None] * np.linalg.norm(pool, axis=1)
        nearest = np.argsort(-raw[name] @ pool.T / lengths, axis=1)[:, :4]
        np.testing.assert_allclose(made[name], pool[nearest].mean(axis=1), rtol=1e-5)


def test_a_shard_without_any_such_speaker_is_empty_and_can_be_read(shard: Path) -> None:
    result = run(shard, topk=50)
    assert result.exit_code == 0, result.output
    assert "4 of 4 speaker(s) left out" in result.stderr
    made = FeatureStore([shard / "made.h5"])
    assert len(made) == 0
    assert made.dim == 16
    assert made.meta == META


def test_a_killed_run_goes_on_with_the_speaker_it_was_at(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(shard).exit_code == 0
    whole = (shard / "made.h5").read_bytes()
    (shard / "made.h5").unlink()
    write, written = FeatureWriter.write, list[str]()

    def killed(writer: FeatureWriter, name: str, frames: np.ndarray) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(name)
        write(writer, name, frames)

    monkeypatch.setattr(FeatureWriter, "write", killed)
    assert run(shard).exit_code != 0
    assert written == ["g", "h", "j", "a"]
    assert not (shard / "made.h5").exists()

    def counted(writer: FeatureWriter, name: str, frames: np.ndarray) -> None:
        written.append(name)
        write(writer, name, frames)

    monkeypatch.setattr(FeatureWriter, "write", counted)
    assert run(shard).exit_code == 0
    assert written[4:] == ["a", "c"]
    assert (shard / "made.h5").read_bytes() == whole

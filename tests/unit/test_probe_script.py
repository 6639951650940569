"""`scripts/probe_speakers.py` on features whose speaker part Eta knows exactly."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from etaflow.eta import EtaModel
from etaflow.manifest import COLUMNS, read_table, write_manifest, write_table
from etaflow.store import Embeddings, FeatureMeta, FeatureWriter
from tests.workflow_tools import ROOT

spec = importlib.util.spec_from_file_location("script", ROOT / "scripts" / "probe_speakers.py")
assert spec
assert spec.loader
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

CONFIG = {"speakers": 3, "utterances": 10, "frames": 4, "folds": 3, "seed": 0}
META = FeatureMeta("m", "r", 3, False, 16_000, 320)
PHONES = ("AA", "B", "CH")
FRAMES = 30


def embedding(speaker: int) -> np.ndarray:
    return np.random.default_rng(100 + speaker).normal(size=3).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Five test speakers of six utterances, one of one: phone + A^T embedding + noise."""
    generator = np.random.default_rng(0)
    coefficients = generator.normal(size=(3, 8))
    content = generator.normal(size=(len(PHONES), 8))
    names = [f"s{s}-u{u}" for s in range(6) for u in range(6 if s < 5 else 1)]
    speakers = [name[:2] for name in names]
    rows = []
    # Ten frames of each phone, of which the third is left out of the text every other time.
    with FeatureWriter(
        tmp_path / "0.h5",
        META,
        names,
        speakers,
        [FRAMES * 320 + 80] * len(names),
        [FRAMES] * len(names),
        8,
    ) as writer:
        for index, name in enumerate(names):
            frames = np.repeat(content, FRAMES // len(PHONES), axis=0)
            frames = frames + embedding(int(name[1])) @ coefficients
            writer.write(name, (frames + generator.normal(0, 0.2, frames.shape)).astype("f4"))
            for place, phone in enumerate(PHONES[: 3 - index % 2]):
                rows.append([name, place * 0.2, place * 0.2 + 0.2, f"w{phone}", phone])
    rows.append([names[0], 0.001, 0.002, "wNG", "NG"])  # too short to hold a frame
    write_table(
        pd.DataFrame(rows, columns=["utterance_id", "start", "stop", "word", "phone"]),
        tmp_path / "aligned.tsv",
    )
    vectors = np.stack([embedding(int(name[1])) for name in names])
    Embeddings(names, speakers, vectors, "encoder", "published").write(tmp_path / "spk.h5")
    facts = {"model": "m", "revision": "r", "layer": 3, "normalize": False, "encoder": "encoder"}
    facts |= {"utterances": None, "seed": 0}
    model = EtaModel(coefficients, np.zeros(8), np.zeros(8), None, facts | {"weights": "trained"})
    model.save_pretrained(tmp_path / "eta")
    manifest = pd.DataFrame(
        [[n, n[:2], "0", "test", f"{n}.wav", 9_680, 16_000, "", "0000", n] for n in names],
        columns=COLUMNS,
    )
    write_manifest(manifest, tmp_path / "probed.tsv")
    write_manifest(manifest.assign(split="train", speaker_id="other"), tmp_path / "fit.tsv")
    return tmp_path


def run(place: Path, *more: str, fit: str = "fit.tsv", **changes: int) -> tuple[pd.DataFrame, str]:
    arguments = {
        "--config": json.dumps(CONFIG | changes),
        "--manifest": place / "probed.tsv",
        "--fit-manifest": place / fit,
        "--embeddings": place / "spk.h5",
        "--eta": place / "eta",
        "--output": place / "probe.tsv",
    }
    flat = [str(part) for pair in arguments.items() for part in pair]
    result = CliRunner().invoke(script.app, [str(place / "0.h5"), *flat, *more])
    if result.exception:
        raise result.exception
    numbers = tuple(name for name in script.COLUMNS[3:-1])
    return read_table(place / "probe.tsv", numbers), result.stderr


def test_eta_takes_the_speaker_and_leaves_the_content(place: Path) -> None:
    table, log = run(place, "--alignments", str(place / "aligned.tsv"), "--words")
    assert list(table) == script.COLUMNS
    key = table.set_index(["probe", "unit", "features"])
    assert list(key.index) == [
        (probe, unit, kind)
        for probe, unit in [
            ("speaker", "utterance"),
            ("speaker", "frame"),
            ("content", "phone"),
            ("content", "word"),
        ]
        for kind in ("raw", "eta")
    ]
    for unit, n in (("utterance", 18), ("frame", 72)):
        raw, eta = key.loc[("speaker", unit, "raw")], key.loc[("speaker", unit, "eta")]
        # Three of the five speakers who have enough utterances.
        assert (raw["n"], raw["utterances"], raw["classes"]) == (n, 18, 3)
        assert raw["accuracy"] > 90
        assert eta["low"] < eta["chance"] < eta["high"]
        assert raw["chance"] == raw["majority"] == pytest.approx(100 / 3)
    for unit in ("phone", "word"):
        raw, eta = key.loc[("content", unit, "raw")], key.loc[("content", unit, "eta")]
        # The draw takes ten utterances of each phone; speakers only stand in the way.
        assert (eta["accuracy"], eta["n"], eta["classes"]) == (100, 30, 3)
        assert raw["chance"] < raw["low"] < raw["accuracy"] < 100
        assert eta["weights"] == raw["weights"] == "published"  # the aligner's
    assert set(table.loc[table["probe"] == "speaker", "weights"]) == {"trained"}
    assert set(table["speakers_in_fit"]) == {0}
    assert "warning" not in log
    assert "speaker: 1 class(es) in fewer than 3 utterances (`folds`) left out: s5" in log


def test_speakers_that_the_fit_saw_are_counted_and_told(place: Path) -> None:
    table = read_table(place / "probed.tsv")
    table["split"] = np.where(table["speaker_id"].isin(["s0", "s1", "s5"]), "train", "test")
    write_manifest(table, place / "seen.tsv")
    found, log = run(place, fit="seen.tsv", speakers=9)
    assert set(found["speakers_in_fit"]) == {2}
    assert set(found["classes"]) == {5}
    assert "warning: speaker probe, frame: 2 of its speakers were in the fit of Eta" in log
    assert set(found["probe"]) == {"speaker"}


def test_a_probe_that_the_data_do_not_allow_has_no_row(place: Path) -> None:
    nothing = read_table(place / "aligned.tsv").iloc[:0]
    write_table(nothing, place / "nothing.tsv")
    table, log = run(place, "--alignments", str(place / "nothing.tsv"), "--words")
    assert set(table["probe"]) == {"speaker"}
    assert "no content probe, phone: 0 class(es) to tell apart" in log
    assert "no content probe, word: 0 class(es) to tell apart" in log
    table, log = run(place, folds=7)
    assert table.empty
    assert list(table) == script.COLUMNS
    assert "no speaker probe, utterance: 0 class(es) to tell apart" in log


def test_features_of_another_model_are_refused(place: Path) -> None:
    path = place / "eta/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer": 6}))
    with pytest.raises(ValueError, match="fitted on layer 6, the features have 3"):
        run(place)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer": 3, "encoder": "other"}))
    with pytest.raises(ValueError, match="fitted on encoder 'other'"):
        run(place)


def test_a_run_twice_is_the_same_to_the_byte(place: Path) -> None:
    run(place)
    first = (place / "probe.tsv").read_bytes()
    run(place)
    assert (place / "probe.tsv").read_bytes() == first

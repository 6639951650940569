"""scripts/convert.py, run as a program: it gives what the library gives of the same recordings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from etaflow.audio import AudioError, check_audio, read_audio, write_audio
from etaflow.converter import FeatureConverter, VoiceConverter
from etaflow.manifest import COLUMNS, read_manifest, read_table, write_manifest, write_table
from etaflow.methods import ConversionError
from etaflow.store import Embeddings, FeatureMeta, FeatureWriter
from tests.bundle_tools import run_script

NAMES = ["a/1", "a/2", "b/1", "b/2", "b/3", "c/1"]


@pytest.fixture(scope="module")
def corpus(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, features and embeddings of noise, as the workflow makes them."""
    folder = tmp_path_factory.mktemp("corpus")
    converter = VoiceConverter.from_pretrained(bundle)
    random = np.random.default_rng(0)
    rows, waveforms = [], []
    for index, name in enumerate(NAMES):
        path = folder / f"{index}.flac"
        tone = np.sin(np.arange(12_000 + 1_001 * index) * 0.05 * (index + 1))
        write_audio(path, (0.2 * tone + random.normal(0, 0.05, len(tone))).astype(np.float32))
        waveforms.append(read_audio(path))
        facts = check_audio(path)
        known = (name, name[0], "1", "test", str(path), facts.num_samples, 16_000)
        rows.append((*known, "", "0000", facts.checksum))
    write_manifest(pd.DataFrame(rows, columns=COLUMNS), folder / "manifest.tsv")
    features = [each.numpy() for each in converter.ssl.encode(waveforms)]
    info, speakers = converter.ssl.info, [name[0] for name in NAMES]
    meta = FeatureMeta(info.name, info.revision, converter.ssl.layer, False, 16_000, 320)
    samples, frames = list(map(len, waveforms)), list(map(len, features))
    with FeatureWriter(
        folder / "0000.h5", meta, NAMES, speakers, samples, frames, 128, "float32"
    ) as writer:
        for name, each in zip(NAMES, features, strict=True):
            writer.write(name, each)
    vectors = converter.embed(waveforms)
    Embeddings(NAMES, speakers, vectors, "resemblyzer", "published").write(folder / "speakers.h5")
    return folder


def convert(
    corpus: Path, bundle: Path, output: Path, method: str, pairs: Any, **changes: Any
) -> pd.DataFrame:
    settings = {"method": method, "topk": 2, "reference_seconds": None, "pairs": pairs, "seed": 0}
    arguments = {
        "config": json.dumps(settings | changes),
        "manifest": corpus / "manifest.tsv",
        "output": output / "converted.tsv",
        "wav-dir": output / "wav",
        **{name: bundle / name for name in ("vocoder", "eta")},
        "model": bundle / "ssl" / "model.json",
        "embeddings": corpus / "speakers.h5",
    }
    run_script("convert", arguments, corpus / "0000.h5")
    return read_table(output / "converted.tsv", ("reference_seconds",)).set_index("utterance_id")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The features that are given to the vocoder, in order."""
    given: list[np.ndarray] = []
    vocode = FeatureConverter.vocode

    def spy(self: FeatureConverter, features: np.ndarray, num_samples: int) -> np.ndarray:
        given.append(features)
        return vocode(self, features, num_samples)

    monkeypatch.setattr(FeatureConverter, "vocode", spy)
    return given


@pytest.mark.parametrize("method", ["knn", "linear", "mkl+knn", "knn-eta-source", "knn-eta"])
def test_listed_references_give_what_the_library_gives(
    corpus: Path, bundle: Path, tmp_path: Path, said: list[np.ndarray], method: str
) -> None:
    table = pd.DataFrame(
        [("one", "c/1", "b/3 b/1"), ("two/x", "a/2", "b/2")],
        columns=["utterance_id", "source_id", "references"],
    )
    write_table(table, tmp_path / "pairs.tsv")
    made = convert(corpus, bundle, tmp_path, method, {"table": str(tmp_path / "pairs.tsv")})
    # Groups are made in order of target and references: "b/2" comes before "b/3 b/1".
    given = dict(zip(["two/x", "one"], said, strict=True))
    converter = VoiceConverter.from_pretrained(bundle)
    paths = read_manifest(corpus / "manifest.tsv").set_index("utterance_id")["path"]
    for name, source_id, listed in table.itertuples(index=False):
        source = read_audio(paths[source_id])
        references = [read_audio(paths[each]) for each in listed.split()]
        embeddings = converter.embed(references)
        voice = converter.voice(method, converter.encode_references(references), embeddings, 2)
        features = converter.ssl.encode([source])[0]
        with torch.inference_mode():
            expected = voice.mapping(features, converter.embed([source])[0])(features).numpy()
        np.testing.assert_allclose(given[name], expected, atol=2e-3)
        assert len(read_audio(tmp_path / "wav" / f"{name}.wav")) == len(source)
    assert made.loc["one", "target_speaker"] == "b"
    assert made.loc["one", "path"] == "wav/one.wav"


def test_a_limit_on_references_and_what_there_is(
    corpus: Path, bundle: Path, tmp_path: Path
) -> None:
    pairs = {"sources": ["a/1", "c/1"], "targets": ["b"]}
    for seconds, taken in ((1, 1.0), (90, None)):
        made = convert(
            corpus, bundle, tmp_path / str(seconds), "knn", pairs, reference_seconds=seconds
        )
        assert list(made.index) == ["a/1-to-b", "c/1-to-b"]
        everything = convert(corpus, bundle, tmp_path / "all", "knn", pairs)
        expected = taken or everything["reference_seconds"].iloc[0]
        assert set(made["reference_seconds"]) == {expected}


def test_a_recording_that_changed_since_its_manifest_is_named(
    corpus: Path, bundle: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(corpus / "manifest.tsv")
    changed = manifest.assign(checksum=["0"] * len(manifest))
    write_manifest(changed, tmp_path / "manifest.tsv")
    pairs = {"sources": ["a/1"], "targets": ["b"]}
    (tmp_path / "0000.h5").symlink_to(corpus / "0000.h5")
    (tmp_path / "speakers.h5").symlink_to(corpus / "speakers.h5")
    for method in ("knn", "original"):
        with pytest.raises(AudioError, match="changed since its manifest was made"):
            convert(tmp_path, bundle, tmp_path / method, method, pairs)
        assert not (tmp_path / method / "converted.tsv").exists()


def test_too_little_reference_is_named_with_its_pair(
    corpus: Path, bundle: Path, tmp_path: Path
) -> None:
    pairs = {"sources": ["a/1"], "targets": ["b"]}
    with pytest.raises(ConversionError, match=r"a/1 to b: 100000 neighbours asked of a pool of"):
        convert(corpus, bundle, tmp_path, "knn", pairs, topk=100_000)


def test_features_of_another_encoder_are_refused(
    corpus: Path, bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    described = tmp_path / "bundle/ssl/model.json"
    facts = json.loads(described.read_text())
    described.write_text(json.dumps(facts | {"revision": "another"}))
    pairs = {"sources": ["a/1"], "targets": ["b"]}
    with pytest.raises(ConversionError, match=r"0000\.h5: features of .*, not of .* another \("):
        convert(corpus, tmp_path / "bundle", tmp_path, "knn", pairs)
    assert not (tmp_path / "converted.tsv").exists()

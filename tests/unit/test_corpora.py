"""Corpora: splits, folders of any layout, and the way from a listing to a manifest."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from etaflow.corpora import (
    CorpusError,
    Recording,
    Rejected,
    build_manifest,
    fetch,
    inventory,
    recordings,
    rejection_summary,
)
from etaflow.corpora.splits import assign_splits
from etaflow.manifest import COLUMNS, read_manifest, read_table, shard_of

PATTERN = r"(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>[^/]+)"
SPEECH = os.environ.get("ETAFLOW_SPEECH_DIR")
SCRIPTS = Path(__file__).parents[2] / "scripts"


def tone(path: Path, seconds: float = 0.3, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.2), rate)
    return path


def folder_config(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "folder",
        "root": str(root),
        "pattern": PATTERN,
        "text_suffix": ".txt",
        "shards": 3,
        "seed": 0,
        "split": {"by": "speaker", "test_fraction": 0.5},
        **changes,
    }


# Splits


def grid(speakers: int, sessions: int, utterances: int) -> list[Recording]:
    return [
        Recording(f"{s}-{d}-{u}", f"s{s}", f"d{d}", Path(f"{s}-{d}-{u}.wav"))
        for s in range(speakers)
        for d in range(sessions)
        for u in range(utterances)
    ]


@given(st.integers(2, 30), st.floats(0.01, 0.99), st.integers(0, 5), st.randoms())
def test_split_by_speaker(speakers: int, fraction: float, seed: int, order: Any) -> None:
    corpus = grid(speakers, 1, 2)
    sides = assign_splits(corpus, "speaker", fraction, seed)
    side_of = defaultdict(set)
    for recording, side in zip(corpus, sides, strict=True):
        side_of[recording.speaker_id].add(side)
    assert all(len(both) == 1 for both in side_of.values())
    num_test = sum(both == {"test"} for both in side_of.values())
    assert num_test == min(max(round(fraction * speakers), 1), speakers - 1)
    shuffled = list(zip(corpus, sides, strict=True))
    order.shuffle(shuffled)
    again = assign_splits([recording for recording, _ in shuffled], "speaker", fraction, seed)
    assert again == [side for _, side in shuffled]


@pytest.mark.parametrize("by", ["session", "utterance"])
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.01, 0.99))
def test_split_within_speakers(by: str, speakers: int, units: int, fraction: float) -> None:
    corpus = grid(speakers, units, 1) if by == "session" else grid(speakers, 1, units)
    sides = assign_splits(corpus, by, fraction, seed=0)
    expected = 0 if units == 1 else min(max(round(fraction * units), 1), units - 1)
    for speaker in range(speakers):
        mine = sides[speaker * units : (speaker + 1) * units]
        assert mine.count("test") == expected


def test_sessions_are_split_whole() -> None:
    corpus = grid(3, 4, 5)
    sides = assign_splits(corpus, "session", 0.5, seed=0)
    for start in range(0, len(corpus), 5):
        assert len(set(sides[start : start + 5])) == 1


@given(st.integers(2, 40), st.integers(0, 3))
def test_a_new_speaker_moves_at_most_one_other(speakers: int, seed: int) -> None:
    before = assign_splits(grid(speakers, 1, 1), "speaker", 0.3, seed)
    after = assign_splits(grid(speakers + 1, 1, 1), "speaker", 0.3, seed)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 1


def test_split_edges() -> None:
    corpus = grid(4, 1, 1)
    assert assign_splits(corpus, "speaker", 0.0, 0) == ["train"] * 4
    assert assign_splits(corpus, "speaker", 1.0, 0) == ["test"] * 4
    assert assign_splits(corpus[:1], "speaker", 0.5, 0) == ["train"]
    own = [Recording("x", "s0", "d", Path("x"), split="test"), *corpus]
    assert assign_splits(own, "speaker", 0.0, 0) == ["test"] + ["train"] * 4
    chosen = {tuple(assign_splits(corpus, "speaker", 0.5, seed)) for seed in range(20)}
    assert len(chosen) > 2
    with pytest.raises(ValueError, match=r"'chapter'.*speaker, session, utterance"):
        assign_splits(corpus, "chapter", 0.5, 0)
    with pytest.raises(ValueError, match=r"1\.5"):
        assign_splits(corpus, "speaker", 1.5, 0)


# Folders


def test_folder_listing(tmp_path: Path) -> None:
    tone(tmp_path / "ann/mon/1.wav").with_suffix(".txt").write_text("Grüße,\n  Welt\n")
    tone(tmp_path / "bob/tue/1.x.FLAC")
    tone(tmp_path / "stray.wav")
    tone(tmp_path / ".hidden/mon/2.wav")
    tone(tmp_path / "ann/mon/._1.wav")
    (tmp_path / "ann/mon/notes.md").write_text("no audio")
    config = folder_config(
        tmp_path, pattern=r"(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>\w+)(\.x)?"
    )
    assert recordings(config, config["root"]) == [
        Rejected(tmp_path / "stray.wav", "path does not match the pattern"),
        Recording("1", "ann", "mon", tmp_path / "ann/mon/1.wav", "Grüße,\n  Welt\n"),
        Recording("1", "bob", "tue", tmp_path / "bob/tue/1.x.FLAC"),
    ]


def test_folder_defaults_of_session_and_utterance(tmp_path: Path) -> None:
    path = tone(tmp_path / "x/ann_3.wav")
    config = folder_config(tmp_path, pattern=r"x/(?P<speaker>[a-z]+)_\d")
    assert recordings(config, config["root"]) == [Recording("x_ann_3", "ann", "0", path)]
    config["pattern"] = r"(?P<speaker>.+)_\d"
    assert recordings(config, config["root"]) == [Recording("x_ann_3", "x_ann", "0", path)]


def test_folder_follows_links_but_no_loops(tmp_path: Path) -> None:
    tone(tmp_path / "elsewhere/mon/1.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/ann").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/mon/up").symlink_to(tmp_path / "corpus")
    found = recordings(folder_config(tmp_path / "corpus"), tmp_path / "corpus")
    assert [item.path.relative_to(tmp_path) for item in found] == [Path("corpus/ann/mon/1.wav")]


@pytest.mark.parametrize(
    ("pattern", "message"), [("(?P<who>.*)", "no group"), ("(?P<speaker>", "not a regular")]
)
def test_folder_pattern_is_checked(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recordings(folder_config(tmp_path, pattern=pattern), tmp_path)


def test_folder_transcript_that_is_not_utf8(tmp_path: Path) -> None:
    tone(tmp_path / "ann/mon/1.wav").with_suffix(".txt").write_bytes(b"caf\xe9")
    (item,) = recordings(folder_config(tmp_path), tmp_path)
    assert isinstance(item, Rejected)
    assert item.reason.startswith("transcript is not UTF-8")


def test_missing_folder_and_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere: no such folder"):
        recordings(folder_config(tmp_path / "nowhere"), tmp_path / "nowhere")
    for call in (fetch, recordings, build_manifest):
        with pytest.raises(ValueError, match=r"'timit'.*mini, espeak, librispeech.*folder"):
            call({"kind": "timit"}, tmp_path)


# Manifests


@pytest.mark.parametrize("workers", [1, 2])
def test_manifest_of_a_folder_with_bad_files(tmp_path: Path, workers: int) -> None:
    for speaker in ("ann", "bob", "cai"):
        for utterance in range(3):
            tone(tmp_path / f"{speaker}/mon/{speaker}{utterance}.wav", rate=22_050)
    (tmp_path / "ann/mon/ann0.txt").write_text("two\twords\n")
    (tmp_path / "ann/mon/ann1.wav").write_bytes(b"")
    (tmp_path / "bob/mon/bob2.wav").write_text("text")
    tone(tmp_path / "bob/mon/short.wav", seconds=0.05)
    tone(tmp_path / "bob/mon/tab\there.wav")
    tone(tmp_path / "odd.wav")
    manifest, rejected = build_manifest(folder_config(tmp_path), tmp_path, workers)
    assert list(manifest.columns) == COLUMNS
    assert list(manifest.utterance_id) == ["ann0", "ann2", "bob0", "bob1", "cai0", "cai1", "cai2"]
    assert manifest.text[0] == "two words"
    assert set(manifest.sample_rate) == {22_050}
    assert set(manifest.num_samples) == {round(0.3 * 22_050)}
    assert list(manifest.shard) == [shard_of(speaker, 3) for speaker in manifest.speaker_id]
    assert manifest.groupby("speaker_id").split.nunique().max() == 1
    assert set(manifest.split) == {"train", "test"}
    reasons = {Path(path).name: reason for path, reason in rejected.itertuples(index=False)}
    assert reasons.pop("bob2.wav").startswith("unreadable: ")
    assert reasons == {
        "ann1.wav": "empty file",
        "short.wav": "shorter than 0.1 s (0.050 s)",
        "tab\\there.wav": "tab or line break in the path or an id",
        "odd.wav": "path does not match the pattern",
    }


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    for i in range(3):
        tone(tmp_path / f"ann/mon/{i}.wav", seconds=0.01 * (i + 1))
    tone(tmp_path / "odd.wav")
    with pytest.raises(
        CorpusError,
        match=r"none of 4 files can be used: 3 × shorter than 0\.1 s, 1 × path does not match",
    ):
        build_manifest(folder_config(tmp_path), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="there is no audio file"):
        build_manifest(folder_config(tmp_path / "empty"), tmp_path / "empty")


def test_one_id_for_two_files_names_both(tmp_path: Path) -> None:
    tone(tmp_path / "ann/mon/1.wav")
    tone(tmp_path / "ann/tue/1.wav")
    with pytest.raises(CorpusError, match=r"'1'.*ann/mon/1\.wav.*ann/tue/1\.wav"):
        build_manifest(folder_config(tmp_path), tmp_path)


def test_a_file_name_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    tone(tmp_path / "ann/mon/1.wav")
    os.rename(tmp_path / "ann/mon/1.wav", os.fsencode(tmp_path / "ann/mon") + b"/\xe9.wav")
    tone(tmp_path / "ann/mon/é.wav")
    manifest, rejected = build_manifest(folder_config(tmp_path), tmp_path)
    assert list(manifest.utterance_id) == ["é"]
    assert list(rejected.reason) == ["the path is not UTF-8"]
    assert inventory(folder_config(tmp_path), tmp_path)["files"] == 2


def test_inventory_sees_files_sizes_and_texts(tmp_path: Path) -> None:
    path = tone(tmp_path / "ann/mon/1.wav")
    config = folder_config(tmp_path)
    digests = [inventory(config, config["root"])["digest"]]
    os.utime(path, (0, 0))
    assert inventory(config, config["root"]) == {"kind": "folder", "files": 1, "digest": digests[0]}
    for change in (
        lambda: path.with_suffix(".txt").write_text("hello"),
        lambda: tone(path, seconds=0.4),
        lambda: tone(tmp_path / "ann/mon/2.wav"),
    ):
        change()
        digests.append(inventory(config, config["root"])["digest"])
    assert len(set(digests)) == 4


def test_reasons_are_grouped() -> None:
    reasons = ["truncated: 3 of 5 samples", "empty file", "truncated: 4 of 5 samples"]
    assert rejection_summary(reasons) == "2 × truncated, 1 × empty file"


@pytest.mark.skipif(SPEECH is None, reason="ETAFLOW_SPEECH_DIR is not set: no real recordings")
def test_real_recordings() -> None:
    assert SPEECH
    pattern = f"[^/]+/{PATTERN}"
    config = folder_config(Path(SPEECH, "LibriTTS"), pattern=pattern, text_suffix=".normalized.txt")
    manifest, rejected = build_manifest(config, config["root"])
    assert (len(manifest), len(rejected)) == (48, 0)
    assert manifest.speaker_id.nunique() == 2
    assert manifest.groupby("speaker_id").session_id.nunique().tolist() == [2, 2]
    assert set(manifest.sample_rate) == {24_000}
    assert (manifest.text != "").all()
    config = folder_config(Path(SPEECH, "LibriSpeech"), pattern=pattern)
    manifest, rejected = build_manifest(config, config["root"])
    assert (len(manifest), len(rejected)) == (27, 0)
    assert manifest.speaker_id.nunique() == 27
    assert set(manifest.text) == {""}
    published = {"kind": "librispeech", "subsets": ["train-clean-100"], "shards": 3, "seed": 0}
    same, _ = build_manifest(published, SPEECH)
    assert list(same.checksum) == list(manifest.checksum)
    assert set(same.split) == {"train"}


def test_a_folder_is_found_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="kind folder is found at its `root`, not fetched"):
        fetch(folder_config(tmp_path), tmp_path)


def test_build_manifest_script(tmp_path: Path) -> None:
    for speaker in ("ann", "bob"):
        tone(tmp_path / f"in/{speaker}/mon/{speaker}.wav")
    (tmp_path / "in/ann/mon/bad.wav").touch()
    config = json.dumps(folder_config(tmp_path / "in", shards=8))

    def run(script: str, *arguments: str | Path) -> str:
        command = [sys.executable, SCRIPTS / script, "--config", config, "--root", tmp_path / "in"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    outputs = ["--manifest", tmp_path / "m.tsv", "--rejected", tmp_path / "r.tsv"]
    outputs += ["--recordings", tmp_path / "a.tsv"]
    said = run("build_manifest.py", *outputs, "--shard-dir", tmp_path / "shards")
    assert "2 utterances of 2 speakers" in said
    assert "1 files rejected: 1 × empty file" in said
    whole = read_manifest(tmp_path / "m.tsv")
    shards = sorted((tmp_path / "shards").iterdir())
    assert [path.name for path in shards] == [f"{shard:04d}.tsv" for shard in range(8)]
    parts = [read_manifest(path) for path in shards]
    assert sorted(u for part in parts for u in part.utterance_id) == list(whole.utterance_id)
    assert all(set(part.shard) <= {path.stem} for part, path in zip(parts, shards, strict=True))
    assert list(read_table(tmp_path / "r.tsv").reason) == ["empty file"]

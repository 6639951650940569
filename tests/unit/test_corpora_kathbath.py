"""Kathbath: the download against a local server, and the layouts it unpacks or is converted to."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from etaflow.corpora import (
    CorpusError,
    Recording,
    Rejected,
    build_manifest,
    kathbath,
    recordings,
)
from tests.corpora_tools import audio, sha256, tar
from tests.file_server import Server, serving
from tests.m4a_tools import needs_aac, write_m4a

pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


KATHBATH: dict[str, Any] = {"kind": "kathbath", "language": "hindi", "shards": 1, "seed": 0}
TOLD = "transcription_n2w.txt"


def kathbath_files(suffix: str, content: bytes) -> dict[str, dict[str, bytes]]:
    """What the archives hold: two languages, all subsets."""
    top = "kb_data_clean_m4a"
    texts = "844424931537866-594-f.m4a\tनमस्ते दुनिया\n844424931029859-973-m.m4a\tदो\n"
    return {
        "train_audio": {
            f"{top}/hindi/train/audio/844424931537866-594-f{suffix}": content,
            f"{top}/hindi/train/audio/notes{suffix}": content,
            f"{top}/tamil/train/audio/844424931000001-12-m{suffix}": content,
        },
        "valid_audio": {f"{top}/hindi/valid/audio/844424931537867-594-f{suffix}": content},
        "testkn_audio": {f"{top}/hindi/test_known/audio/844424931537868-594-f{suffix}": content},
        "testunk_audio": {
            f"{top}/hindi/test_unknown/audio/844424931029859-973-m{suffix}": content,
            f"{top}/hindi/test_unknown/audio/844424931029860-973-m{suffix}": b"",
        },
        "transcripts_n2w": {
            f"{top}/hindi/train/{TOLD}": texts.encode(),
            f"{top}/hindi/test_unknown/{TOLD}": texts.encode(),
            f"{top}/tamil/train/{TOLD}": b"844424931000001-12-m.m4a\tx\n",
        },
    }


@pytest.mark.parametrize("suffix", [pytest.param(".m4a", marks=needs_aac), ".wav"])
def test_kathbath(server: Server, tmp_path: Path, suffix: str) -> None:
    content = audio("WAV", 16_000)
    if suffix == ".m4a":
        samples = soundfile.read(io.BytesIO(content))[0]
        content = write_m4a(tmp_path / "a.m4a", samples).read_bytes()
    for name, files in kathbath_files(suffix, content).items():
        server.files[f"/{name}.tar"] = tar(files)
    root = tmp_path / "resources/corpora/kathbath"
    kathbath.fetch(root, KATHBATH, server.url)
    manifest, rejected = build_manifest(KATHBATH, root)
    columns = ["utterance_id", "speaker_id", "session_id", "split", "text"]
    assert manifest[columns].to_numpy().tolist() == [
        ["844424931029859-973-m", "973", "0", "test", "दो"],
        ["844424931537866-594-f", "594", "0", "train", "नमस्ते दुनिया"],
        ["844424931537867-594-f", "594", "0", "test", ""],
        ["844424931537868-594-f", "594", "0", "test", ""],
    ]
    assert set(manifest.num_samples) == {16_000}
    assert list(rejected.reason) == ["empty file", "name is not UTTERANCE-SPEAKER-GENDER"]
    tamil = recordings({**KATHBATH, "language": "tamil"}, root)
    assert [item.path.name for item in tamil] == ["844424931000001-12-m" + suffix]
    own = {**KATHBATH, "split": {"by": "speaker", "test_fraction": 0.5}}
    sides = build_manifest(own, root)[0].groupby("speaker_id").split.unique()
    assert sorted(side for (side,) in sides) == ["test", "train"]
    requests = len(server.log)
    kathbath.fetch(root, KATHBATH, server.url)
    assert len(server.log) == requests


def test_kathbath_has_to_come_as_it_came_first(server: Server, tmp_path: Path) -> None:
    archives = {
        f"/{name}.tar": tar(files) for name, files in kathbath_files(".m4a", b"first").items()
    }
    server.files.update(archives)
    root = tmp_path / "resources/corpora/kathbath"
    kathbath.fetch(root, KATHBATH, server.url)
    record = json.loads((tmp_path / "resources/checksums.json").read_text())
    assert record == {server.url + path: sha256(content) for path, content in archives.items()}
    shutil.rmtree(root)
    server.files["/valid_audio.tar"] = changed = tar({"kb_data_clean_m4a/hindi/x": b""})
    with pytest.raises(CorpusError) as caught:
        kathbath.fetch(root, KATHBATH, server.url)
    for part in ("valid_audio.tar", sha256(archives["/valid_audio.tar"]), sha256(changed)):
        assert part in str(caught.value)
    assert (root / "train_audio/kb_data_clean_m4a/.completed").exists()
    assert not (root / "valid_audio/kb_data_clean_m4a").exists()
    (tmp_path / "resources/checksums.json").write_text("{")
    with pytest.raises(CorpusError, match=r"checksums\.json is damaged .*repair it"):
        kathbath.fetch(root, KATHBATH, server.url)


@pytest.mark.parametrize("place", ["clean_m4a/{}/{}.m4a", "clean_wav/{}/594/{}.wav"])
def test_kathbath_is_found_in_both_layouts(tmp_path: Path, place: str) -> None:
    name = "844424931537866-594-f"
    path = tmp_path / f"kb_data_{place.format('hindi/valid/audio', name)}"
    # Copies with noise bear the same names.
    noisy = tmp_path / f"kb_data_noisy_m4a/hindi/test_known/audio/{name}.m4a"
    for each in (path, noisy):
        each.parent.mkdir(parents=True)
        each.touch()
    assert recordings(KATHBATH, tmp_path) == [Recording(name, "594", "0", path, "", "test")]


def test_kathbath_twice_under_one_root_is_an_error(tmp_path: Path) -> None:
    for kind in ("m4a", "wav"):
        path = tmp_path / f"kb_data_clean_{kind}/hindi/valid/audio/844424931537866-594-f.{kind}"
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(CorpusError, match="844424931537866-594-f"):
        build_manifest(KATHBATH, tmp_path)


def test_kathbath_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "hindi/train/audio").mkdir(parents=True)
    with pytest.raises(CorpusError, match="no hindi/SUBSET of Kathbath"):
        recordings(KATHBATH, tmp_path)
    with pytest.raises(ValueError, match="no language 'hindu'; it has bengali, "):
        recordings({**KATHBATH, "language": "hindu"}, tmp_path)
    (tmp_path / "hindi/train" / TOLD).write_bytes(b"1-2-m.m4a\t\xff\n")
    (tmp_path / "hindi/train/audio/1-2-m.flac").write_bytes(audio("FLAC", 16_000))
    transcript, recording = recordings(KATHBATH, tmp_path)
    assert isinstance(transcript, Rejected)
    assert transcript.reason.startswith("transcript is not UTF-8")
    assert isinstance(recording, Recording)

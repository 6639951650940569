"""Published corpora: downloads against a local server, and the layouts they unpack to."""

import hashlib
import io
import stat
import tarfile
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from etaflow.corpora import (
    CorpusError,
    Recording,
    Rejected,
    archives,
    build_manifest,
    fetch,
    librispeech,
    libritts,
    recordings,
    trial_lists,
    vctk,
    voxceleb,
)
from tests.corpora_tools import audio, sha256, tar
from tests.file_server import Handler, Server, serving

pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


FLAC = audio("FLAC", 16_000)
LIBRISPEECH = {
    "LibriSpeech/SPEAKERS.TXT": b"; a table\n",
    "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac": FLAC,
    "LibriSpeech/dev-clean/84/121123/84-121123-0001.flac": FLAC[:9000],
    "LibriSpeech/dev-clean/84/121123/84-121123-0002.flac": b"",
    "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt": (
        b"84-121123-0000 GO DO YOU HEAR\n84-121123-0001 CUT\n84-121123-0009 NOT THERE\n"
    ),
}
CONFIG: dict[str, Any] = {
    "kind": "librispeech",
    "subsets": ["dev-clean"],
    "root": None,
    "shards": 1,
    "seed": 0,
}


@pytest.fixture
def archive(server: Server) -> bytes:
    content = tar(LIBRISPEECH)
    server.files["/dev-clean.tar.gz"] = content
    return content


def get(server: Server, root: Path, content: bytes) -> None:
    librispeech.fetch(root, CONFIG, server.url, {"dev-clean": sha256(content)})


def test_fetch_then_list(server: Server, archive: bytes, tmp_path: Path) -> None:
    get(server, tmp_path, archive)
    assert (tmp_path / "LibriSpeech/SPEAKERS.TXT").read_bytes() == b"; a table\n"
    assert not (tmp_path / "dev-clean.tar.gz").exists()
    chapter = tmp_path / "LibriSpeech/dev-clean/84/121123"
    found = {item.path.name: item for item in recordings(CONFIG, tmp_path)}
    assert found["84-121123-0000.flac"] == Recording(
        "84-121123-0000",
        "84",
        "121123",
        chapter / "84-121123-0000.flac",
        "GO DO YOU HEAR",
        "test",
    )
    assert len(found) == 4
    manifest, rejected = build_manifest(CONFIG, tmp_path)
    assert list(manifest.utterance_id) == ["84-121123-0000"]
    assert list(manifest.split) == ["test"]
    assert [Path(path).name[:14] for path in rejected.path] == [
        "84-121123-0001",
        "84-121123-0002",
        "84-121123-0009",
    ]
    assert rejected.reason[0].startswith(("truncated", "unreadable"))
    assert list(rejected.reason[1:]) == ["empty file", "named by a transcript but missing"]


def test_nothing_is_fetched_twice(server: Server, archive: bytes, tmp_path: Path) -> None:
    get(server, tmp_path, archive)
    requests = len(server.log)
    get(server, tmp_path, archive)
    assert len(server.log) == requests


def test_half_a_file_is_resumed(server: Server, archive: bytes, tmp_path: Path) -> None:
    half = len(archive) // 2
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive[:half])
    get(server, tmp_path, archive)
    assert server.log[-1] == ("GET", "/dev-clean.tar.gz", f"bytes={half}-")
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


def test_a_whole_file_is_not_fetched_again(server: Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive)
    get(server, tmp_path, archive)
    assert server.log == []
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


def test_a_download_cut_short_says_so_and_resumes(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.cut_after = 1000
    with pytest.raises(CorpusError, match=f"1000 of {len(archive)} bytes.*run again to resume"):
        get(server, tmp_path, archive)
    server.cut_after = None
    get(server, tmp_path, archive)
    assert server.log[-1][2] == "bytes=1000-"
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


def test_a_broken_connection_is_tried_again_where_it_broke(
    server: Server,
    archive: bytes,
    tmp_path: Path,
    waits: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive[:1000])
    server.status = [0, 503, 0]
    get(server, tmp_path, archive)
    assert [line for line in server.log if line[0] == "GET"] == [
        ("GET", "/dev-clean.tar.gz", "bytes=1000-")
    ] * 4
    assert waits == [2, 4, 8]
    said = capsys.readouterr().err
    assert "dev-clean.tar.gz: try 1 of 5 failed at byte 1000: " in said
    assert "try 2 of 5 failed at byte 1000: HTTP Error 503: Service Unavailable; the next" in said
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


def test_tries_are_counted_from_the_last_that_brought_something(
    server: Server, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = len(archive) // 12 + 1
    answer = Handler.answer

    def cut(handler: Handler, body: bool) -> None:
        wanted = handler.headers.get("Range")
        handler.server.cut_after = step + (int(wanted[6:-1]) if wanted else 0)
        answer(handler, body)

    monkeypatch.setattr(Handler, "answer", cut)
    get(server, tmp_path, archive)
    assert sum(line[0] == "GET" for line in server.log) == 12
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_tried_again(
    server: Server, archive: bytes, tmp_path: Path, waits: list[float], status: int
) -> None:
    server.status = [status]
    with pytest.raises(CorpusError, match=f"HTTP Error {status}"):
        get(server, tmp_path, archive)
    assert waits == []
    assert sum(line[0] == "GET" for line in server.log) == 1


def test_a_server_that_cannot_resume_starts_anew(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive[:1000])
    server.knows_ranges = False
    get(server, tmp_path, archive)
    assert (tmp_path / "LibriSpeech/dev-clean/.completed").exists()


def test_a_web_page_is_no_archive(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(CorpusError, match=r"gave a web page in place of dev-clean\.tar\.gz"):
        get(server, tmp_path, archive)
    assert not (tmp_path / "dev-clean.tar.gz").exists()


def test_wrong_checksum(server: Server, archive: bytes, tmp_path: Path) -> None:
    expected = sha256(b"something else")
    with pytest.raises(CorpusError) as caught:
        librispeech.fetch(tmp_path, CONFIG, server.url, {"dev-clean": expected})
    for part in (str(tmp_path / "dev-clean.tar.gz"), expected, sha256(archive)):
        assert part in str(caught.value)
    assert (tmp_path / "dev-clean.tar.gz").read_bytes() == archive
    assert not (tmp_path / "LibriSpeech").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "LibriSpeech/../../evil.txt"])
def test_an_archive_cannot_write_outside(server: Server, tmp_path: Path, name: str) -> None:
    content = tar({name: b"evil"})
    server.files["/dev-clean.tar.gz"] = content
    with pytest.raises(CorpusError, match=r"refused to unpack.*evil\.txt"):
        get(server, tmp_path / "corpora", content)
    assert list(tmp_path.rglob("evil.txt")) == []
    assert not (tmp_path / "corpora/LibriSpeech/dev-clean/.completed").exists()


def test_a_link_cannot_lead_outside(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        link = tarfile.TarInfo("LibriSpeech/out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        opened.addfile(link)
    server.files["/dev-clean.tar.gz"] = buffer.getvalue()
    with pytest.raises(CorpusError, match="refused to unpack"):
        get(server, tmp_path / "corpora", buffer.getvalue())


def test_server_errors(
    server: Server, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CorpusError, match="404"):
        librispeech.fetch(tmp_path, CONFIG, f"{server.url}/gone", {"dev-clean": sha256(archive)})
    with pytest.raises(ValueError, match="no subset 'dev-dirty'; it has dev-clean, dev-other"):
        fetch({**CONFIG, "subsets": ["dev-dirty"]}, tmp_path)
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CorpusError, match="are free"):
        get(server, tmp_path, archive)


def test_splits_of_subsets(tmp_path: Path) -> None:
    for subset in ("train-clean-100", "dev-other", "test-clean"):
        path = tmp_path / subset / "1/2/1-2-0000.flac"
        path.parent.mkdir(parents=True)
        path.write_bytes(FLAC)
        path.rename(path.with_name(f"{subset}.flac"))
    config = {**CONFIG, "subsets": ["train-clean-100", "dev-other", "test-clean"]}
    splits = [item.split for item in recordings(config, tmp_path) if isinstance(item, Recording)]
    assert splits == ["train", "test", "test"]
    own = {**config, "split": {"by": "utterance", "test_fraction": 0.34}}
    assert {item.split for item in recordings(own, tmp_path)} == {None}
    manifest, _ = build_manifest(own, tmp_path)
    assert sorted(manifest.split) == ["test", "train", "train"]


def test_libritts(server: Server, tmp_path: Path) -> None:
    base = "LibriTTS/train-clean-100/103/1241/103_1241_000000_000001"
    content = tar(
        {
            f"{base}.wav": audio("WAV", 24_000),
            f"{base}.normalized.txt": b"Matthew Cuthbert is surprised\n",
            f"{base}.original.txt": b"Matthew Cuthbert is Surprised\n",
            "LibriTTS/train-clean-100/103/1241/._103_1241_000000_000001.wav": b"resource fork",
            "LibriTTS/train-clean-100/103/1241/103_1241_000000_000002.wav": b"",
        }
    )
    server.files["/train-clean-100.tar.gz"] = content
    config = {**CONFIG, "kind": "libritts", "subsets": ["train-clean-100"]}
    libritts.fetch(tmp_path, config, server.url, {"train-clean-100": sha256(content)})
    manifest, rejected = build_manifest(config, tmp_path)
    (row,) = manifest.itertuples()
    assert (row.utterance_id, row.speaker_id, row.session_id, row.split, row.sample_rate) == (
        "103_1241_000000_000001",
        "103",
        "1241",
        "train",
        24_000,
    )
    assert row.text == "Matthew Cuthbert is surprised"
    assert list(rejected.reason) == ["empty file"]


def test_vctk(server: Server, tmp_path: Path) -> None:
    flac = audio("FLAC", 48_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n")
        for microphone in ("mic1", "mic2"):
            for speaker in ("p225", "s5"):
                name = f"wav48_silence_trimmed/{speaker}/{speaker}_001_{microphone}.flac"
                opened.writestr(name, flac)
        opened.writestr("wav48_silence_trimmed/p280/p280_001_mic1.flac", flac)
        opened.writestr("txt/p225/p225_001.txt", "Please call Stella.\n")
    content = buffer.getvalue()
    server.files["/VCTK-Corpus-0.92.zip"] = content
    config = {**CONFIG, "kind": "vctk"}
    vctk.fetch(tmp_path, config, f"{server.url}/VCTK-Corpus-0.92.zip", sha256(content))
    assert (tmp_path / "VCTK-Corpus-0.92/speaker-info.txt").exists()
    with pytest.raises(CorpusError, match="'vctk' needs a `split`"):
        build_manifest(config, tmp_path)
    config["split"] = {"by": "speaker", "test_fraction": 0.5}
    manifest, rejected = build_manifest(config, tmp_path)
    assert list(manifest.utterance_id) == ["p225_001", "s5_001"]
    assert list(manifest.speaker_id) == ["p225", "s5"]
    assert list(manifest.text) == ["Please call Stella.", ""]
    assert len(rejected) == 0


def test_a_zip_stays_inside(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("../../evil.txt", "evil")
        opened.writestr(f"{tmp_path}/evil.txt", "evil")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, str(tmp_path))
    server.files["/VCTK-Corpus-0.92.zip"] = content = buffer.getvalue()
    config, root = {**CONFIG, "kind": "vctk"}, tmp_path / "corpora/vctk"
    vctk.fetch(root, config, f"{server.url}/VCTK-Corpus-0.92.zip", sha256(content))
    assert [path.name for path in tmp_path.iterdir()] == ["corpora"]
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == ["vctk"]
    folder = root / "VCTK-Corpus-0.92"
    assert (folder / "evil.txt").read_text() == "evil"
    assert (folder / "link").read_text() == str(tmp_path)
    assert not (folder / "link").is_symlink()


KEY = "se/cret+key"
VOXCELEB: dict[str, Any] = {"kind": "voxceleb1", "key_env": "A_KEY", "shards": 1, "seed": 0}


@pytest.fixture
def voxceleb_archives(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """On the server: the archive of two speakers in three pieces, and that of a test speaker."""
    monkeypatch.setenv("A_KEY", KEY + "\n")
    wav = audio("WAV", 16_000)
    zips = []
    for speakers in (["id10001", "id11251"], ["id10270"]):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            for speaker in speakers:
                opened.writestr(f"wav/{speaker}/-x_Y1/00001.wav", wav)
        zips.append(buffer.getvalue())
    dev, test = zips
    third = len(dev) // 3
    pieces = {"partaa": dev[:third], "partab": dev[third : 2 * third], "partac": dev[2 * third :]}
    archives = {"dev": pieces, "test": {"test.zip": test}}
    for files in archives.values():
        for name, content in files.items():
            server.files[f"/voxceleb?key={quote(KEY, safe='')}&file={name}"] = content
    return {
        folder: {name: sha256(content) for name, content in files.items()}
        for folder, files in archives.items()
    }


def test_voxceleb1_is_fetched_with_a_key(
    server: Server, voxceleb_archives: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    voxceleb.fetch(tmp_path, VOXCELEB, f"{server.url}/voxceleb", voxceleb_archives)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev", "test"]
    manifest, rejected = build_manifest(VOXCELEB, tmp_path)
    columns = ["utterance_id", "speaker_id", "session_id", "split"]
    assert manifest[columns].to_numpy().tolist() == [
        ["id10001--x_Y1-00001", "id10001", "-x_Y1", "train"],
        ["id10270--x_Y1-00001", "id10270", "-x_Y1", "test"],
        ["id11251--x_Y1-00001", "id11251", "-x_Y1", "train"],
    ]
    assert len(rejected) == 0
    requests = len(server.log)
    voxceleb.fetch(tmp_path, {**VOXCELEB, "key_env": "UNSET"}, server.url, voxceleb_archives)
    assert len(server.log) == requests


def test_a_fetch_of_voxceleb1_goes_on_where_it_ended(
    server: Server, voxceleb_archives: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    url = f"{server.url}/voxceleb"
    # Killed while pieces came, then while the joined archive was unpacked.
    first = next(iter(server.files.values()))
    (tmp_path / "partaa").write_bytes(first)
    server.status = [403]
    with pytest.raises(CorpusError, match=r"403: Forbidden.*is the key in A_KEY right"):
        voxceleb.fetch(tmp_path, VOXCELEB, url, voxceleb_archives)
    assert (tmp_path / "partaa").read_bytes() == first
    dev = b"".join(list(server.files.values())[:3])
    (tmp_path / "dev.joined").write_bytes(dev)
    server.log.clear()
    voxceleb.fetch(tmp_path, VOXCELEB, url, voxceleb_archives)
    assert {path.rpartition("=")[2] for _, path, _ in server.log} == {"test.zip"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev", "test"]


@pytest.mark.parametrize("fault", ["refused", "cut", "damaged", "page", "full", "gone"])
def test_the_key_is_never_shown(
    server: Server,
    voxceleb_archives: dict[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    url = f"{server.url}/voxceleb"
    if fault == "refused":
        server.status = [403]
    elif fault == "cut":
        server.cut_after = 10
    elif fault == "damaged":
        voxceleb_archives["dev"]["partaa"] = sha256(b"")
    elif fault == "page":
        server.content_type = "text/html"
    elif fault == "full":
        usage = archives.shutil.disk_usage(tmp_path)
        monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=10))
    else:
        url = "http://127.0.0.1:9/voxceleb"
    with pytest.raises(CorpusError) as caught:
        voxceleb.fetch(tmp_path, VOXCELEB, url, voxceleb_archives)
    shown = "".join(traceback.format_exception(caught.value)) + str(capfd.readouterr())
    shown += caplog.text + repr(archives.Part(f"{url}?key={KEY}", "name", "0"))
    assert "/voxceleb" in shown
    assert "A_KEY" in shown
    for secret in (KEY, quote(KEY, safe="")):
        assert secret not in shown
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_a_key_that_is_not_set_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(CorpusError, match=r"variable A_KEY is not set.*mm\.kaist\.ac\.kr"):
        fetch(VOXCELEB, tmp_path / "voxceleb1")


@pytest.mark.parametrize(
    "folders",
    [
        ("dev/wav", "test/wav"),
        ("wav", "wav"),
        ("vox1_dev_wav/wav", "vox1_test_wav/wav"),
        (".", "."),
    ],
)
def test_copies_of_voxceleb1_in_the_layouts_that_people_have(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    dev, test = (tmp_path / folder for folder in folders)
    paths = {
        dev / "id10269/v/00001.wav": "train",
        test / "id10270/v/00001.wav": "test",
        test / "id10309/v/00002.wav": "test",
        dev / "id10310/v/00001.wav": "train",
        dev / "id00012/v/00001.wav": None,  # VoxCeleb2
        dev / "noise.wav": None,
    }
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {item.path: getattr(item, "split", None) for item in recordings(VOXCELEB, tmp_path)}
    assert found == paths
    own = {**VOXCELEB, "split": {"by": "session", "test_fraction": 0.5}}
    assert {getattr(item, "split", None) for item in recordings(own, tmp_path)} == {None}


def test_the_test_speakers_of_voxceleb1_are_forty() -> None:
    assert len(voxceleb.TEST_SPEAKERS) == 40


def test_trial_lists(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: each.name for name, each in trial_lists.TRIAL_LISTS.items()} == {
        "vox1-o": "veri_test2.txt",
        "vox1-e": "list_test_all2.txt",
        "vox1-h": "list_test_hard2.txt",
    }
    content = b"1 id10270/a/00001.wav id10270/b/00002.wav\n"
    server.files["/veri_test2.txt"] = content
    output = tmp_path / "lists/vox1-o.txt"
    found = hashlib.md5(content).hexdigest()
    published = trial_lists.TRIAL_LISTS["vox1-o"].md5
    with pytest.raises(CorpusError, match=f"expected {published}, found {found}"):
        trial_lists.fetch_trial_list("vox1-o", output, server.url)
    assert list(output.parent.iterdir()) == []
    known = {"vox1-o": trial_lists.TrialList("veri_test2.txt", found)}
    monkeypatch.setattr(trial_lists, "TRIAL_LISTS", known)
    trial_lists.fetch_trial_list("vox1-o", output, server.url)
    assert output.read_bytes() == content
    assert list(output.parent.iterdir()) == [output]
    with pytest.raises(CorpusError, match="no trial list 'vox2'; there are vox1-o"):
        trial_lists.fetch_trial_list("vox2", output)
    with pytest.raises(CorpusError, match=r"vox1-o: .*404"):
        trial_lists.fetch_trial_list("vox1-o", tmp_path / "other", f"{server.url}/gone")


def test_a_transcript_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean/1/2"
    chapter.mkdir(parents=True)
    (chapter / "1-2-0000.flac").write_bytes(FLAC)
    (chapter / "1-2.trans.txt").write_bytes(b"1-2-0000 \xff\xfe\n")
    transcript, recording = recordings(CONFIG, tmp_path)
    assert isinstance(transcript, Rejected)
    assert transcript.reason.startswith("transcript is not UTF-8")
    assert isinstance(recording, Recording)
    assert recording.text == ""

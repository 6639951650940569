"""Models from a url: fetched whole or not at all, the first checksum on record and enforced."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etaflow import download
from etaflow.fetching import fetch_model
from etaflow.models import ModelError, ModelInfo, read_model_info
from tests.file_server import Server, serving

pytestmark = pytest.mark.usefixtures("waits")

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.files["/g.pt"] = CONTENT
        yield server


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    return tmp_path / "resources"


def fetch(server: Server, resources: Path, **changes: Any) -> ModelInfo:
    entry = {"source": "url", "architecture": "knnvc-hifigan", "url": f"{server.url}/g.pt"}
    return fetch_model("v", {**entry, "sha256": None, **changes}, resources / "models/v")


def record(resources: Path) -> dict[str, str]:
    return json.loads((resources / "checksums.json").read_text(encoding="utf-8"))


def gets(server: Server) -> list[str | None]:
    """The byte ranges that were asked for."""
    return [wanted for command, _, wanted in server.log if command == "GET"]


def test_the_first_download_is_recorded(server: Server, resources: Path) -> None:
    info = fetch(server, resources)
    assert (info.weights, info.revision) == ("published", sha256(CONTENT)[:16])
    assert record(resources) == {f"{server.url}/g.pt": sha256(CONTENT)}
    found, files = read_model_info(resources / "models/v")
    assert found == info
    assert {p.name: p.read_bytes() for p in files.iterdir() if p.suffix == ".pt"} == {
        "generator.pt": CONTENT
    }
    assert {p.name for p in files.iterdir()} == {"generator.pt", "model.json"}


def test_and_enforced_after_the_model_was_deleted(server: Server, resources: Path) -> None:
    first = fetch(server, resources)
    shutil.rmtree(resources / "models")
    assert fetch(server, resources) == first
    shutil.rmtree(resources / "models")
    server.files["/g.pt"] = OTHER
    for _ in range(2):  # what came is not carried on with
        with pytest.raises(ModelError) as caught:
            fetch(server, resources)
        message = str(caught.value)
        assert message.startswith("v: ")
        for part in (sha256(CONTENT), sha256(OTHER), "checksums.json", f"`sha256: {sha256(OTHER)}"):
            assert part in message
        assert not (resources / "models/v").exists()
        assert record(resources) == {f"{server.url}/g.pt": sha256(CONTENT)}
    assert gets(server) == [None] * 4
    server.files["/g.pt"] = CONTENT
    assert fetch(server, resources) == first


def test_a_checksum_in_the_config_comes_before_the_record(server: Server, resources: Path) -> None:
    fetch(server, resources)
    with pytest.raises(ModelError, match=f"expected {sha256(OTHER)}.*the config's `sha256`"):
        fetch(server, resources, sha256=sha256(OTHER))
    server.files["/g.pt"] = OTHER
    fetch(server, resources, sha256=sha256(OTHER))
    assert record(resources) == {f"{server.url}/g.pt": sha256(OTHER)}
    assert fetch(server, resources).revision == sha256(OTHER)[:16]


def test_other_records_are_kept(server: Server, resources: Path) -> None:
    resources.mkdir()
    (resources / "checksums.json").write_text('{"https://elsewhere/x": "0"}')
    fetch(server, resources)
    assert record(resources)["https://elsewhere/x"] == "0"
    (resources / "checksums.json").write_text("{")
    with pytest.raises(ModelError, match=r"checksums\.json is damaged .*repair it"):
        fetch(server, resources)


@pytest.mark.parametrize("known", [True, False])
def test_a_download_that_was_cut_is_resumed(
    server: Server, resources: Path, known: bool, waits: list[float]
) -> None:
    changes = {"sha256": sha256(CONTENT)} if known else {}
    server.cut_after = 4_000
    with pytest.raises(ModelError, match=r"4000 of 10240 bytes.*run again to resume"):
        fetch(server, resources, **changes)
    assert waits == [2, 4, 8, 16]
    assert not (resources / "models/v").exists()
    assert not (resources / "checksums.json").exists()
    server.cut_after = None
    server.log.clear()
    fetch(server, resources, **changes)
    assert gets(server) == ["bytes=4000-"]
    assert (resources / "models/v/generator.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("versions", [True, False])
def test_two_versions_are_not_joined(server: Server, resources: Path, versions: bool) -> None:
    server.cut_after, server.knows_versions = 4_000, versions
    with pytest.raises(ModelError, match="cut short"):
        fetch(server, resources)
    server.files["/g.pt"], server.cut_after = OTHER, None
    server.log.clear()
    fetch(server, resources)
    assert gets(server) == (["bytes=4000-", None] if versions else [None])
    assert (resources / "models/v/generator.pt").read_bytes() == OTHER


def test_a_whole_file_of_unknown_checksum_is_not_trusted(server: Server, resources: Path) -> None:
    part = resources / "models/.v.part"
    part.mkdir(parents=True)
    (part / "generator.pt").write_bytes(OTHER)
    (part / "generator.pt.version").write_text("x")
    (part / "model.safetensors").write_bytes(b"of another source")
    (part / "onnx").mkdir()
    fetch(server, resources)
    assert gets(server) == [f"bytes={len(OTHER)}-", None]
    files = {path.name for path in (resources / "models/v").iterdir()}
    assert files == {"generator.pt", "model.json"}
    assert (resources / "models/v/generator.pt").read_bytes() == CONTENT


def test_a_web_page_or_nothing_is_no_model(server: Server, resources: Path) -> None:
    server.content_type = "text/html"
    with pytest.raises(ModelError, match=r"g\.pt gave a web page in place of generator\.pt"):
        fetch(server, resources)
    with pytest.raises(ModelError, match=r"v: .*gone: HTTP Error 404"):
        fetch(server, resources, url=f"{server.url}/gone?token=secret")
    assert not (resources / "models/v").exists()


def test_without_a_checksum_only_https_is_taken(server: Server, resources: Path) -> None:
    with pytest.raises(ModelError, match="without a checksum, only https is taken"):
        fetch(server, resources, url="http://example.invalid/g.pt")
    server.redirect = "http://example.invalid/g.pt?token=secret"
    with pytest.raises(ModelError, match="that is not https") as caught:
        fetch(server, resources)
    assert "secret" not in str(caught.value)
    server.redirect = f"{server.url}/g.pt"
    fetch(server, resources)


def test_a_wrong_file_is_left_for_the_caller_to_judge(server: Server, tmp_path: Path) -> None:
    with pytest.raises(download.ChecksumError, match=sha256(CONTENT)):
        download.download(f"{server.url}/g.pt", tmp_path / "g.pt", sha256(OTHER))
    assert (tmp_path / "g.pt").read_bytes() == CONTENT


def test_the_file_is_named_by_what_reads_it(server: Server, resources: Path) -> None:
    fetch(server, resources, architecture="unispeech")
    names = {path.name for path in (resources / "models/v").iterdir()}
    assert names == {"encoder.pth", "model.json"}
    with pytest.raises(ModelError, match="v: no 'ecapa' comes as one file; there is knnvc-hifigan"):
        fetch(server, resources, architecture="ecapa")

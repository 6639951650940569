"""LibriMix's tables and WHAM!'s noise, from a server on this machine."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from etaflow.corpora import CorpusError, librimix
from tests.file_server import serving

TABLE = (
    b"mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain\n"
)
NAME, PLACE = "libri3mix_dev-clean", "/Libri3Mix/libri3mix_dev-clean.csv"


@pytest.fixture
def server():
    with serving() as server:
        yield server


def test_a_table_is_fetched_whole_and_has_to_stay_what_it_was(server, tmp_path: Path) -> None:
    record, output = tmp_path / "checksums.json", tmp_path / "mixtures/t.csv"
    server.files[PLACE] = TABLE + b"a,b,1,c,1,d,1\n"
    librimix.fetch_metadata(NAME, output, record, server.url)
    assert output.read_bytes() == server.files[PLACE]
    assert list(json.loads(record.read_text())) == [server.url + PLACE]
    output.unlink()
    server.files[PLACE] = TABLE + b"a,b,2,c,1,d,1\n"
    with pytest.raises(CorpusError, match="is another than when it was first fetched"):
        librimix.fetch_metadata(NAME, output, record, server.url)
    assert list(output.parent.iterdir()) == []


def test_what_is_no_table_is_refused(server, tmp_path: Path) -> None:
    record, output = tmp_path / "checksums.json", tmp_path / "t.csv"
    server.files[PLACE] = b"<html>moved</html>"
    with pytest.raises(CorpusError, match="gave is no table of mixtures"):
        librimix.fetch_metadata(NAME, output, record, server.url)
    with pytest.raises(CorpusError, match=r"libri2mix_dev-clean: .*404"):
        librimix.fetch_metadata("libri2mix_dev-clean", output, record, server.url)
    with pytest.raises(CorpusError, match="no metadata 'libri4mix_dev-clean'; there are libri2mix"):
        librimix.fetch_metadata("libri4mix_dev-clean", output, record, server.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["tr", "cv"])
def test_noise_is_unpacked_and_has_to_have_a_training_part(server, tmp_path, folder: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(f"wham_noise/{folder}/a.wav", b"sound")
    server.files["/wham_noise.zip"] = archive.getvalue()
    root, url = tmp_path / "resources/noise/wham", f"{server.url}/wham_noise.zip"
    if folder == "cv":
        with pytest.raises(CorpusError, match="no wham_noise/tr was in"):
            librimix.fetch_noise(root, url)
        return
    librimix.fetch_noise(root, url)
    assert (root / "wham_noise/tr/a.wav").read_bytes() == b"sound"
    assert url in json.loads((tmp_path / "resources/checksums.json").read_text())
    assert not list(root.parent.glob("*.zip"))

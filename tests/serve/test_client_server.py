"""The client, and the examples of docs/serve.md, at a real server."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from typer.testing import CliRunner

from etaflow.cli import app
from etaflow.serve import Client
from etaflow.serve.client import ClientError
from tests.serve_tools import Running, full_bundle, serve
from tests.workflow_tools import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
SECONDS = 2.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"max_payload_mb": 2.0, "max_seconds": 10.0}
    with serve(bundle, tmp_path_factory.mktemp("server"), settings) as running:
        yield running


@pytest.fixture
def recordings(speech_dir: Path, tmp_path: Path) -> Path:
    """A folder with the files that the examples name: the first seconds of real recordings."""
    found = sorted((speech_dir / "LibriTTS").rglob("*.wav"))
    of_speakers: dict[str, list[Path]] = {}
    for path in found:
        of_speakers.setdefault(path.parts[-3], []).append(path)
    (one, first, *_), (other, second, *_) = list(of_speakers.values())[:2]
    waveforms = {}
    places = {"source": one, "target1": other, "target2": second, "one": one, "other": first}
    for name, path in places.items():
        waveform, rate = soundfile.read(path, frames=int(SECONDS * soundfile.info(path).samplerate))
        waveforms[name] = waveform
        soundfile.write(tmp_path / f"{name}.wav", waveform, rate)
    length = min(len(waveforms["source"]), len(waveforms["target1"]))
    mixture = (waveforms["source"][:length] + waveforms["target1"][:length]) / 2
    soundfile.write(tmp_path / "mix.wav", np.stack([mixture, mixture], axis=1), rate)
    return tmp_path


def test_each_task_of_the_client(server: Running, recordings: Path) -> None:
    client = Client(server.url)
    source = recordings / "source.wav"
    targets = [recordings / "target1.wav", recordings / "target2.wav"]
    converted = client.convert(source, targets, recordings / "out.flac", "knn", 2)
    assert (converted.format, converted.method, converted.weights) == ("flac", "knn", "untrained")
    info = soundfile.info(recordings / "out.flac")
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", 16_000)
    assert info.duration == pytest.approx(soundfile.info(source).duration, abs=0.001)
    assert client.convert(source, targets).method == "knn-eta-source"

    same = client.verify(recordings / "one.wav", recordings / "other.wav")
    different = client.verify(recordings / "one.wav", recordings / "target1.wav")
    assert same["score"] > different["score"]
    assert (same["unit"], same["threshold"], same["weights"]) == ("cosine", 0.62, "published")

    written = client.separate(recordings / "mix.wav", recordings / "speakers")
    assert [path.name for path in written] == ["source1.wav", "source2.wav"]
    mixture = soundfile.info(recordings / "mix.wav")
    for path in written:
        info = soundfile.info(path)
        assert (info.samplerate, info.frames) == (mixture.samplerate, mixture.frames)
        assert (info.subtype, info.channels) == ("FLOAT", 1)

    duration = soundfile.info(source).duration
    assert client.analyze(source)["duration_seconds"] == pytest.approx(duration, abs=0.02)
    assert client.tasks == client.health()["tasks"]


def test_what_the_server_refuses_is_told(server: Running, recordings: Path) -> None:
    client = Client(server.url)
    silent, long, large = (recordings / f"{name}.wav" for name in ("silent", "long", "large"))
    soundfile.write(silent, np.zeros(16_000), 16_000)
    soundfile.write(long, np.full(8000 * 11, 0.1), 8000)
    soundfile.write(large, np.full(1_100_000, 0.1), 96_000)
    good = recordings / "one.wav"
    with pytest.raises(ClientError, match=r"refuses \(422\): other is silent"):
        client.verify(good, silent)
    with pytest.raises(ClientError, match=r"refuses \(422\): the mixture has 11\.0 s or more"):
        client.separate(long, recordings / "new")
    with pytest.raises(ClientError, match=r"takes 2 MB at a time, and the recordings have 2\.2 MB"):
        client.analyze(large)
    with pytest.raises(ClientError, match=r"refuses \(422\): method 'none': this bundle has copy"):
        client.convert(good, [good], recordings / "out.wav", "none")
    assert not (recordings / "out.wav").exists()
    assert not (recordings / "new").exists()


def test_a_key_is_asked_for_where_there_is_one(
    bundle: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETAFLOW_API_KEY", raising=False)
    variables = {"ETAFLOW_API_KEYS": "first,second"}
    with serve(bundle, tmp_path / "server", variables=variables) as server:
        # As docs/serve.md has it, and as the health check of the image needs it.
        open_to_all = {"/v1/health": 200, "/docs": 200, "/metrics": 401}
        for path, status in open_to_all.items():
            assert requests.get(server.url + path, timeout=30).status_code == status
        key = {"X-API-Key": "first"}
        metrics = requests.get(f"{server.url}/metrics", headers=key, timeout=30).text
        names = re.findall(r"`(etaflow_\w+)`", PAGE)
        assert len(names) == 5
        assert [name for name in names if f"# HELP {name} " not in metrics] == []
        with pytest.raises(ClientError, match="wants a key, set ETAFLOW_API_KEY to one"):
            Client(server.url).analyze(recordings / "one.wav")
        with pytest.raises(ClientError, match="does not take the key"):
            Client(server.url, "third").analyze(recordings / "one.wav")
        monkeypatch.setenv("ETAFLOW_API_KEY", "second")
        command = ["client", "analyze", str(recordings / "one.wav"), "--url", server.url]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert json.loads(done.stdout)["embedding_dimension"] == 256
        assert "untrained weights; its measures say little" in done.stderr


def test_the_page_of_the_documentation_has_these_examples() -> None:
    assert [language for language, _ in EXAMPLES] == ["sh", "python", "sh", "python"]
    assert "etaflow client" in EXAMPLES[0][1]
    assert "curl" in EXAMPLES[2][1]


@pytest.mark.parametrize(
    ("number", "files"),
    [
        (0, ["out.flac", "speakers/source1.wav", "speakers/source2.wav"]),
        (1, ["out.wav", "voices/source1.wav", "voices/source2.wav"]),
        (2, ["converted.wav", "sources.zip"]),
        (3, ["predicted.wav"]),
    ],
)
def test_the_examples_of_the_documentation_run(
    server: Running, recordings: Path, number: int, files: list[str]
) -> None:
    language, example = EXAMPLES[number]
    if "curl" in example and not shutil.which("curl"):
        pytest.skip("there is no curl")
    example = example.replace("http://127.0.0.1:8000", server.url)
    programs = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    done = subprocess.run(
        [*programs[language], example],
        cwd=recordings,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in files:
        content = (recordings / name).read_bytes()
        assert content[:4] in (b"RIFF", b"fLaC", b"PK\x03\x04"), name

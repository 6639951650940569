"""Model repositories: huggingface_hub's own code against a small hub on this machine."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from etaflow import hub
from etaflow.hub import HubError, fetch_repository, needed_files
from etaflow.ssl import SSLEncoder
from tests.conftest import ROOT
from tests.file_server import running

REPO, REVISION = "someone/model", "0" * 39 + "1"
LARGE = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
FILES = {"config.json": b"{}", "README.md": b"a model", "model.safetensors": LARGE}


class Fault(NamedTuple):
    """What goes wrong with one request for a path that ends in `path`."""

    path: str
    status: int = 0
    error_code: str = ""
    cut_after: int | None = None


class Hub(ThreadingHTTPServer):
    """The calls of the Hub that are needed, over `files` of one revision, the branch `main`."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.faults: list[Fault] = []
        self.storage = ""  # where files are, if not here
        self.tokens: list[str | None] = []
        self.log: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def listing(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "x", "path": "onnx"}]
        for path, content in self.files.items():
            oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            entry = {"type": "file", "oid": oid, "size": len(content), "path": path}
            if len(content) > 100_000:
                digest = hashlib.sha256(content).hexdigest()
                entry |= {"lfs": {"oid": digest, "size": len(content), "pointerSize": 134}}
            entries.append(entry)
        return entries

    def transfers(self, name: str) -> list[str | None]:
        """The byte ranges asked for of a file."""
        return [wanted for path, wanted in self.log if path.endswith(f"/resolve/{REVISION}/{name}")]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path, wanted = self.path.partition("?")[0], self.headers.get("Range")
        self.server.log.append((path, wanted))
        self.server.tokens.append(self.headers.get("Authorization"))
        fault = next((f for f in self.server.faults if path.endswith(f.path)), Fault(""))
        if fault.path:
            self.server.faults.remove(fault)
        files = {f"/{REPO}/resolve/{REVISION}/{k}": v for k, v in self.server.files.items()}
        files[f"/api/models/{REPO}/tree/{REVISION}"] = json.dumps(self.server.listing()).encode()
        info = {"id": REPO, "sha": REVISION, "siblings": []}
        files[f"/api/models/{REPO}/revision/main"] = json.dumps(info).encode()
        if fault.status:
            self.send_response(fault.status)
            self.send_header("X-Error-Code", fault.error_code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.storage and "/resolve/" in path:
            self.send_response(302)
            self.send_header("Location", self.server.storage + path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in files:
            known = path.startswith(f"/api/models/{REPO}/")
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = files[path]
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        if "/resolve/" in path:
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(whole[start : fault.cut_after])
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Hub]:
    with running(Hub()) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # what a cut may lose


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hub's own cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def fetch(server: Hub, folder: Path, architecture: str = "wavlm", revision: str = REVISION) -> None:
    fetch_repository(REPO, revision, architecture, folder, endpoint=server.url)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_safetensors_are_taken_and_nothing_else_of_the_weights(server: Hub, tmp_path: Path) -> None:
    server.files |= {
        "pytorch_model.bin": b"pickle",
        "tf_model.h5": b"x",
        "onnx/model.onnx": b"x",
        "onnx/model.safetensors": b"x",
        "training_args.bin": b"pickle",
    }
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize(
    ("architecture", "there", "taken"),
    [
        ("wavlm", "config.json pytorch_model.bin training_args.bin flax_model.msgpack", "0 1"),
        (
            "hubert",
            "config.json model.safetensors.index.json model-00001-of-00002.safetensors "
            "model-00002-of-00002.safetensors pytorch_model.bin adapter_model.safetensors",
            "0 1 2 3",
        ),
        ("ecapa", "embedding_model.ckpt classifier.ckpt hyperparams.yaml x.safetensors", "0 2"),
        ("xvector", "classifier.ckpt embedding_model.ckpt hyperparams.yaml", "1 2"),
        ("faster-whisper", "config.json model.bin tokenizer.json vocabulary.json", "0 1 2 3"),
        ("unispeech", "other.bin wavlm_large_finetune.pth", "1"),
        ("etaflow-encoder", "config.json encoder.safetensors other.bin", "0 1"),
        (
            "wavlm-sv",
            "config.json model.safetensors preprocessor_config.json pytorch_model.bin",
            "0 1 2",
        ),
    ],
)
def test_an_architecture_gets_what_its_loader_reads(
    architecture: str, there: str, taken: str
) -> None:
    paths = there.split()
    assert needed_files(paths, architecture) == sorted(paths[int(i)] for i in taken.split())


def test_a_repository_without_weights_to_use_is_named(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"someone/model .*no embedding_model\.ckpt, which ecapa"):
        fetch(server, tmp_path, "ecapa")
    del server.files["model.safetensors"]
    with pytest.raises(HubError, match=r"no model\*\.safetensors or pytorch_model\*\.bin"):
        fetch(server, tmp_path)
    with pytest.raises(HubError, match="architecture 'whisper': allowed are wavlm, hubert"):
        fetch(server, tmp_path, "whisper")
    assert server.transfers("README.md") == []


def test_space_is_seen_to_before_anything_is_fetched(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["model.safetensors"] = LARGE * 100
    usage = hub.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: usage._replace(free=20_000_000))
    with pytest.raises(HubError, match=r"0\.03 GB are needed, 0\.02 GB are free in"):
        fetch(server, tmp_path)
    assert contents(tmp_path) == {}
    assert len(server.log) == 1
    part = server.listing()[3]["oid"]
    (tmp_path / f"model.safetensors.{part}.incomplete").write_bytes(LARGE * 50)
    fetch(server, tmp_path)  # what is there already need not fit again
    assert server.transfers("model.safetensors") == [f"bytes={len(LARGE) * 50}-"]


def test_a_transfer_cut_in_the_middle_goes_on_there(server: Hub, tmp_path: Path) -> None:
    server.faults = [Fault("model.safetensors", cut_after=100_000)]
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.transfers("model.safetensors") == [None, "bytes=100000-"]


def test_the_token_goes_to_the_hub_and_not_where_it_sends_for_files(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running(Hub()) as storage:
        server.storage = storage.url
        storage.faults = [Fault("model.safetensors", cut_after=100_000)]
        fetch(server, tmp_path)
        assert contents(tmp_path) == FILES
        assert storage.transfers("model.safetensors") == [None, "bytes=100000-"]
        assert set(storage.tokens) == {None}
    assert set(server.tokens) == {"Bearer hf_secret"}


def test_an_interrupted_download_is_resumed_by_the_next_call(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    server.faults = [Fault("model.safetensors", cut_after=100_000)]
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path)
    assert max(map(len, contents(tmp_path).values())) == 100_000
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.transfers("model.safetensors") == [None, "bytes=100000-"]
    assert server.transfers("config.json") == [None]


def test_what_came_damaged_is_fetched_again(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = server.listing()
    part = tmp_path / f"model.safetensors.{listing[3]['oid']}.incomplete"
    part.write_bytes(bytes(100_000))
    (tmp_path / "config.json").write_bytes(b"[]")  # as long as what is listed
    (tmp_path / "of-another-revision").touch()
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.transfers("model.safetensors") == ["bytes=100000-", None]
    assert "try 1 of 5 failed at byte 0: model.safetensors came damaged" in capsys.readouterr().err


def test_an_overlong_part_is_thrown_away(server: Hub, tmp_path: Path) -> None:
    part = tmp_path / f"model.safetensors.{server.listing()[3]['oid']}.incomplete"
    part.write_bytes(LARGE + b"x")
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES


def test_a_busy_server_is_asked_again(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [Fault("model.safetensors", 503), Fault(REVISION, 503)] * 2
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert len(server.log) == 2 + len(FILES) + 1 + 2
    assert len(server.transfers("model.safetensors")) == 3
    said = capsys.readouterr().err
    assert "try 1 of 5 failed at byte 0" in said
    assert "try 2 of 5 failed at byte 0" in said
    assert "503" in said


def test_a_server_that_stays_busy_is_given_up_and_resumed_later(
    server: Hub, tmp_path: Path
) -> None:
    server.faults = [Fault("model.safetensors", 503)] * 5
    with pytest.raises(HubError, match=r"503(.|\n)*Run again to resume"):
        fetch(server, tmp_path)
    assert len(server.transfers("model.safetensors")) == 5
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (
            Fault("/tree/" + REVISION, 401),
            r"refused \(401\).*check its name.*hf auth login",
        ),
        (Fault("model.safetensors", 401, "GatedRepo"), r"gated: accept.*`hf auth login`.*HF_TOKEN"),
        (Fault("model.safetensors", 403, "GatedRepo"), r"gated: accept.*`hf auth login`.*HF_TOKEN"),
        (Fault("model.safetensors", 403), r"access was refused \(403\)"),
        (Fault("model.safetensors", 404, "EntryNotFound"), r"not there \(404\)"),
        (Fault("/tree/" + REVISION, 404, "RepoNotFound"), r"not there \(404\): check its name"),
        (
            Fault("/tree/" + REVISION, 404, "RevisionNotFound"),
            "no revision 0+1: check its sp",
        ),
    ],
)
def test_a_refusal_is_not_tried_again_and_says_what_to_do(
    server: Hub, tmp_path: Path, fault: Fault, advice: str
) -> None:
    server.faults = [fault]
    with pytest.raises(HubError, match=rf"someone/model of the Hugging Face Hub: .*{advice}"):
        fetch(server, tmp_path)
    assert sum(path.endswith(fault.path) for path, _ in server.log) == 1


def test_a_listing_cannot_write_outside(server: Hub, tmp_path: Path) -> None:
    server.files["../evil.txt"] = b"evil"
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(HubError, match=r"refused to write '\.\./evil\.txt'"):
        fetch(server, folder)
    assert not (tmp_path / "evil.txt").exists()


def put_in_cache(cache: Path, files: dict[str, bytes]) -> None:
    """As the library lays it out when something else has downloaded the model."""
    snapshot = cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / REVISION
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(content)


def test_the_hubs_own_cache_is_used(server: Hub, tmp_path: Path, cache: Path) -> None:
    put_in_cache(cache, {"model.safetensors": LARGE, "config.json": b"[]"})
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.transfers("model.safetensors") == []
    assert server.transfers("config.json") == [None]  # the cached one is not what is listed


def test_a_hub_out_of_reach_is_named_unless_the_cache_will_do(tmp_path: Path, cache: Path) -> None:
    with Hub() as server:
        nowhere = server.url  # closed by the time it is asked
    with pytest.raises(HubError, match=r"Connection refused\. Run again"):
        fetch_repository(REPO, REVISION, "wavlm", tmp_path, endpoint=nowhere)
    put_in_cache(cache, FILES)
    fetch_repository(REPO, REVISION, "wavlm", tmp_path, endpoint=nowhere)
    assert contents(tmp_path) == FILES


def test_a_refusal_to_list_leaves_the_cache(server: Hub, tmp_path: Path, cache: Path) -> None:
    put_in_cache(cache, FILES)
    server.faults = [Fault(REVISION, 401)]
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES


def fetch_by_script(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    entry = {"source": "huggingface", "architecture": "wavlm", "repo": REPO, "revision": REVISION}
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts/fetch_model.py"),
            *("--name", "mine", "--config", json.dumps(entry)),
            *("--output", str(folder / "mine/model.json")),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_resumes_after_a_kill_and_leaves_nothing_of_its_own(
    server: Hub, tmp_path: Path, cache: Path
) -> None:
    part = tmp_path / ".mine.part"
    part.mkdir()
    oid = server.listing()[3]["oid"]
    (part / f"model.safetensors.{oid}.incomplete").write_bytes(LARGE[:7])
    done = fetch_by_script(tmp_path, HF_ENDPOINT=server.url, HF_HUB_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert f"mine: huggingface {REVISION}, published weights" in done.stderr
    assert server.transfers("model.safetensors") == ["bytes=7-"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    found = contents(tmp_path / "mine")
    assert json.loads(found.pop("model.json"))["revision"] == REVISION
    assert found == FILES


def test_without_a_network_the_cache_will_do(tmp_path: Path, cache: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = fetch_by_script(tmp_path, **offline)
    assert done.returncode != 0
    assert (
        "ModelError: mine: someone/model of the Hugging Face Hub: HF_HUB_OFFLINE is set, and the "
        "Hub's cache on this machine has not all of it" in done.stderr
    )
    assert not (tmp_path / "mine/model.json").exists()
    put_in_cache(cache, FILES | {"pytorch_model.bin": b"pickle"})
    done = fetch_by_script(tmp_path, **offline)
    assert done.returncode == 0, done.stderr
    found = contents(tmp_path / "mine")
    assert json.loads(found.pop("model.json"))["weights"] == "published"
    assert found == FILES


def test_half_of_a_model_in_the_cache_is_not_a_model(tmp_path: Path, cache: Path) -> None:
    put_in_cache(cache, {"config.json": b"{}"})
    part = tmp_path / ".mine.part/model.safetensors.0.incomplete"
    part.parent.mkdir()
    part.touch()
    done = fetch_by_script(tmp_path, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache))
    assert "the Hub's cache on this machine has not all of it" in done.stderr
    assert not (tmp_path / "mine").exists()
    assert part.exists()  # to be resumed when there is a network


NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print("NETWORK", event, arguments, file=sys.stderr)
        raise PermissionError(event)

sys.addaudithook(refuse)
import numpy
from etaflow.ssl import SSLEncoder
encoder = SSLEncoder.from_pretrained(sys.argv[1], 2)
print(float(encoder.encode([numpy.ones(16_000, numpy.float32)])[0].abs().sum()))
"""


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_a_fetched_model_loads_without_a_network(
    wavlm_tiny: Path, tmp_path: Path, weights: str, offline: str
) -> None:
    folder = wavlm_tiny if weights == "safetensors" else as_pickle(wavlm_tiny, tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    assert float(done.stdout) > 0


def as_pickle(model: Path, folder: Path, **more: Any) -> Path:
    """The model as repositories keep it that have no safetensors."""
    folder.mkdir()
    for name in ("config.json", "model.json"):
        (folder / name).write_bytes((model / name).read_bytes())
    torch.save(load_file(model / "model.safetensors") | more, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_the_same_weights(
    wavlm_tiny: Path, tmp_path: Path, waveforms: list[np.ndarray]
) -> None:
    pickled = SSLEncoder.from_pretrained(as_pickle(wavlm_tiny, tmp_path / "model"), 2)
    plain = SSLEncoder.from_pretrained(wavlm_tiny, 2)
    for one, other in zip(pickled.encode(waveforms), plain.encode(waveforms), strict=True):
        assert torch.equal(one, other)


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_weights_cannot_run_code(wavlm_tiny: Path, tmp_path: Path) -> None:
    folder = as_pickle(wavlm_tiny, tmp_path / "model", evil=Touch(tmp_path / "touched"))
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        SSLEncoder.from_pretrained(folder, 2)
    assert not (tmp_path / "touched").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "touched").exists()

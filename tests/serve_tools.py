"""A bundle that can do every task, and a server of it as a process of its own, for tests."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import requests
import soundfile
import torch
import yaml
from prometheus_client.parser import text_string_to_metric_families
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from etaflow.audio import Waveform
from etaflow.evaluation.tables import COLUMNS
from etaflow.fetching import fetch_model
from etaflow.manifest import write_table
from etaflow.separation.networks import create_separator, save_separator
from etaflow.vocoder import Generator
from tests.bundle_tools import make_bundle, run_script
from tests.separation_tools import SETTINGS
from tests.workflow_tools import environment

START_SECONDS = 240  # on a busy machine
# The equal error rate of these is at a cosine of 0.62. Resemblyzer's of 48 real utterances of two
# voices (LibriTTS) are 0.63 and more for one voice, 0.61 and less for two.
SCORES = [0.90, 0.80, 0.70, 0.62, 0.61, 0.50, 0.40, 0.30]
TARGETS = [1, 1, 1, 1, 0, 0, 0, 0]


def full_bundle(folder: Path) -> Path:
    """Make `folder/bundle`: conversion and separation of noise, verification by Resemblyzer."""
    fetch_model(
        "wavlm-tiny",
        {"source": "random", "architecture": "wavlm-tiny", "seed": 0},
        folder / "wavlm-tiny",
    )
    entry = {"source": "package", "architecture": "resemblyzer"}
    fetch_model("resemblyzer", entry, folder / "resemblyzer")
    bundle = make_bundle(folder, folder / "wavlm-tiny", folder / "resemblyzer")
    raise_voice(bundle)
    add_verifier(bundle, folder / "resemblyzer", folder / "inputs")
    add_separator(bundle)
    metrics = bundle / "metrics"
    metrics.mkdir(exist_ok=True)
    for name, table in metrics_tables().items():
        write_table(table, metrics / f"{name}.tsv")
    return bundle


def raise_voice(bundle: Path) -> None:
    """Have what the vocoder says depend on what it hears: new weights say all but a constant."""
    vocoder = Generator.from_pretrained(bundle / "vocoder")
    with torch.no_grad():
        for name, parameter in vocoder.named_parameters():
            parameter.mul_(2.0 if name.endswith("weight") else 0.0)
    vocoder.save_pretrained(bundle / "vocoder")


def metrics_tables() -> dict[str, pd.DataFrame]:
    """A few figures of each task."""
    conversion = [
        ("original", "wer", 3.0, 1.0, 5.0, 20, "published"),
        ("knnvc", "wer", 86.3, 80.0, 90.0, 60, "untrained"),
        ("knnvc", "eer_pooled", 31.25, 28.0, 35.5, 60, "untrained"),
    ]
    verification = [
        ("cosine", "pairs", "eer", 25.0, 20.0, 30.0, 8, "published"),
        ("cosine", "pairs", "min_dcf_0.01", 0.5, 0.4, 0.6, 8, "published"),
    ]
    separation = [
        ("mixture", "both", "si_snr", -0.02, -0.5, 0.4, 12, "published"),
        ("small", "both", "si_snr", -7.5, -8.25, -6.75, 12, "untrained"),
    ]
    system, *rest = COLUMNS
    return {
        "conversion": pd.DataFrame(conversion, columns=COLUMNS),
        "verification": pd.DataFrame(verification, columns=[system, "trials", *rest]),
        "separation": pd.DataFrame(separation, columns=[system, "mixtures", *rest]),
    }


def add_verifier(bundle: Path, encoder: Path, inputs: Path) -> None:
    """Run `scripts/bundle_verifier.py` into `bundle/verifier`."""
    scores = pd.DataFrame({"enrolment": [*"abcdefgh"], "test": [*"ijklmnop"], "target": TARGETS})
    write_table(scores.assign(score=SCORES), inputs / "scores.tsv")
    write_table(metrics_tables()["verification"], inputs / "verification.tsv")
    config = {
        "run": "small",
        "trials": "pairs",
        "corpora": ["mine"],
        "as_norm": None,
        "max_seconds": None,
    }
    arguments = {
        "system": "cosine",
        "encoder": encoder / "model.json",
        "metrics": inputs / "verification.tsv",
        "trials": inputs / "scores.tsv",
        "config": json.dumps(config),
        "output-dir": bundle / "verifier",
    }
    run_script("bundle_verifier", arguments)


def add_separator(bundle: Path) -> None:
    """A small SepFormer of two voices at 8 kHz, with random weights."""
    torch.manual_seed(0)
    network = create_separator(SETTINGS["sepformer"])
    (bundle / "separator").mkdir()
    save_separator(network, bundle / "separator", name="small", weights="untrained")


def free_port() -> int:
    """One that nobody listens on, on the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def health(self) -> requests.Response:
        return requests.get(f"{self.url}/v1/health", timeout=30)


@contextmanager
def serve(
    bundle: Path,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> Iterator[Running]:
    """Run `etaflow serve` until the block ends, then end it by SIGTERM.

    Args:
        bundle: to serve.
        folder: for its log and its settings; the working directory.
        settings: of the server, see `etaflow.serve.settings`.
        variables: of its environment, beside those of this process.
        arguments: more of its command line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serve.yaml").write_text(yaml.safe_dump(dict(settings or {})), encoding="utf-8")
    port, log = free_port(), folder / "serve.log"
    command = [
        *(str(Path(sys.executable).with_name("etaflow")), "serve", "--bundle", str(bundle)),
        *("--host", "127.0.0.1", "--port", str(port), "--config", str(folder / "serve.yaml")),
        *arguments,
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    running = Running(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(running)
        yield running
    finally:
        end(process)


def _wait(server: Running) -> None:
    """Until it is ready; an error with its log when it ends before, or is too slow."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            if server.health().status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no server at {server.url}:\n{server.log.read_text(errors='replace')}")


def end(process: subprocess.Popen[Any]) -> None:
    """By SIGTERM; one that does not heed it is killed, which is a fault."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def spoken(seed: int, seconds: float, rate: int = 16_000) -> Waveform:
    """A voice of its own pitch that says syllables: harmonics under an envelope, and some noise."""
    random = np.random.default_rng(seed)
    time_axis = np.arange(round(seconds * rate)) / rate
    pitch = random.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time_axis))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    weights = random.uniform(0.2, 1, 12) / np.arange(1, 13)
    voice = sum(weight * np.sin(n * phase) for n, weight in enumerate(weights, start=1))
    syllables = 0.15 + np.abs(np.sin(2 * np.pi * random.uniform(1.5, 2.5) * time_axis))
    waveform = 0.1 * voice * syllables + random.normal(0, 0.003, len(time_axis))
    return waveform.astype(np.float32)


def audio_file(waveform: Waveform, rate: int = 16_000, kind: str = "WAV", **how: Any) -> bytes:
    """A waveform (T,) or (T, channels) as a file in memory; `how` is for `soundfile.write`."""
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=kind, **how)
    return file.getvalue()


def base64_of(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def samples_of(file: bytes) -> tuple[Waveform, int]:
    """The samples of a file as they are, and its rate."""
    waveform, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    return waveform, int(rate)


def worker_processes(server: Running) -> list[psutil.Process]:
    """The processes that compute: of the server's children those that were spawned."""
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if "multiprocessing.spawn" in " ".join(_command(each))]


def _command(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
    return words


def counts(server: Running, headers: Mapping[str, str] | None = None) -> dict[str, float]:
    """What `/metrics` says, as `name{label=value,…}`, without the times of creation."""
    text = requests.get(f"{server.url}/metrics", headers=headers, timeout=60).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return {name: value for name, value in found.items() if "_created" not in name}


def lively_bundle(folder: Path) -> Path:
    """As `full_bundle`, but conversions of other recordings differ by thousands of 16-bit steps.

    Random biases drown what a small vocoder makes of its features; here they are 0.
    """
    bundle = full_bundle(folder)
    path = bundle / "vocoder" / "generator.safetensors"
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    weights = {
        name: 0 * value if name.endswith("bias") else value
        for name, value in load_file(path).items()
    }
    save_file(weights, path, facts)
    return bundle

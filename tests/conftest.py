"""Fixtures that several test modules share."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import speechbrain  # noqa: F401
import torch
from speechbrain.utils.importutils import LazyModule
from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel

from etaflow.fetching import RANDOM_SSL, fetch_model


def remove_placeholders() -> None:
    """Remove what SpeechBrain leaves for optional modules; hypothesis fails when it looks at it."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, LazyModule):
            del sys.modules[name]


remove_placeholders()

# Programs are started by name, as in the rules.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
# Tests interrupt programs. Those of a shell in the background would not hear of it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Real recordings; see the README on ETAFLOW_SPEECH_DIR."""
    folder = os.environ.get("ETAFLOW_SPEECH_DIR")
    if not folder:
        pytest.skip("ETAFLOW_SPEECH_DIR is not set: no real recordings to test on")
    return Path(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one core, whose results are the same to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited, between the tries of a download."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture(scope="session")
def wavlm_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model of the embedded default, as the workflow writes it."""
    folder = tmp_path_factory.mktemp("models") / "wavlm-tiny"
    entry = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
    fetch_model("wavlm-tiny", entry, folder)
    return folder


def small_model(folder: Path, kind: str) -> Path:
    """A small WavLM or HuBERT in the layout of the `base` (group norm) or `large` models."""
    torch.manual_seed(1)
    sizes = dict(RANDOM_SSL["wavlm-tiny"])
    if kind.endswith("base"):
        sizes |= {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
    model = (
        WavLMModel(WavLMConfig(**sizes))
        if kind.startswith("wavlm")
        else HubertModel(HubertConfig(**sizes))
    )
    # Norms start as the identity, which would hide one applied at the wrong place.
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.5)
    model.save_pretrained(folder)
    info = {
        "name": kind,
        "source": "random",
        "architecture": kind.split("-")[0],
        "revision": "test",
        "weights": "untrained",
        "path": ".",
    }
    (folder / "model.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(
    scope="session", params=["wavlm-large", "wavlm-base", "hubert-large", "hubert-base"]
)
def ssl_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    """Noise of lengths that are not multiples of the hop, two of them equal."""
    generator = np.random.default_rng(0)
    lengths = [16_123, 400, 5_001, 16_123, 9_999]
    return [generator.normal(0, 0.1, size).astype(np.float32) for size in lengths]


@pytest.fixture(scope="session")
def bundle(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the embedded default's kind; to be left as it is."""
    from tests.bundle_tools import make_bundle

    folder = tmp_path_factory.mktemp("run")
    entry = {"source": "package", "architecture": "resemblyzer"}
    fetch_model("resemblyzer", entry, folder / "resemblyzer")
    return make_bundle(folder, wavlm_tiny, folder / "resemblyzer")

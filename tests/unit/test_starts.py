"""Jobs of seconds do not wait for libraries that they do not use."""

import subprocess
import sys
from pathlib import Path

import pytest

from etaflow.fetching import fetch_model

SPOKEN = "np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)"


@pytest.mark.parametrize(
    ("code", "needless"),
    [
        ("import etaflow.converter", "transformers"),
        ("import etaflow.separation.tables", "scipy.signal"),
        (
            "import numpy as np; from etaflow.speaker import load_speaker_encoder; "
            f"load_speaker_encoder(sys.argv[1]).embed([{SPOKEN}])",
            "librosa.core",
        ),
    ],
)
def test_what_is_slow_to_load_and_not_used_is_not_loaded(
    code: str, needless: str, tmp_path: Path
) -> None:
    folder = tmp_path / "resemblyzer"
    fetch_model("resemblyzer", {"source": "package", "architecture": "resemblyzer"}, folder)
    looked = f"import sys; {code}; print([{needless!r} in sys.modules, 'numpy' in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", looked, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[False, True]\n"


def test_a_script_does_not_look_through_its_imports_for_garbage() -> None:
    code = "import gc, etaflow.script; etaflow.script.new_app(); print(len(gc.get_objects()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2_000  # of tens of thousands

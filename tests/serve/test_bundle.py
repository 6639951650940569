"""What is known of a bundle without its models, and how a server is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etaflow.serve.bundle import BundleError, ServedBundle
from tests.conftest import ROOT
from tests.serve_tools import full_bundle, metrics_tables


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_bundle_says_what_it_can_do(bundle: Path) -> None:
    served = ServedBundle.read(str(bundle))
    assert served.run == "small"
    assert served.weights == {
        "convert": "untrained",
        "analyze": "untrained",
        "verify": "published",
        "separate": "untrained",
    }
    assert served.methods[:2] == ("copy", "knn")
    assert len(served.methods) == 13
    assert served.method == "knn-eta-source"
    assert served.card.startswith("# etaflow bundle of the run `small`")
    for name, table in metrics_tables().items():
        assert served.metrics[name].shape == table.shape


def test_what_a_bundle_lacks_it_cannot_do(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"eta": False}), encoding="utf-8")
    shutil.rmtree(copy / "verifier")
    shutil.rmtree(copy / "separator")
    shutil.rmtree(copy / "metrics")
    served = ServedBundle.read(str(copy))
    assert served.weights == {"convert": "untrained"}
    assert served.methods == ("copy", "knn", "linear", "mkl", "mkl+knn")
    assert served.method == "knn"
    assert served.metrics == {}


def test_of_a_vocoder_of_eta_features_only_methods_that_end_there(copy: Path) -> None:
    path = copy / "vocoder/config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["trained_on"]["features"] = "eta"
    path.write_text(json.dumps(config), encoding="utf-8")
    served = ServedBundle.read(str(copy))
    assert served.methods == ("copy", "knn-eta", "linear-eta", "mkl-eta", "mkl+knn-eta")
    assert served.method == "knn-eta"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "{}", "format None, expected etaflow-bundle/1"),
        ("config.json", "no JSON", "damaged one (JSONDecodeError"),
        ("vocoder/config.json", "[]", "damaged one (TypeError"),
        ("verifier/verifier.json", '{"trials": {}}', "damaged one (KeyError: 'weights')"),
    ],
)
def test_a_damaged_bundle_is_named(copy: Path, file: str, text: str, said: str) -> None:
    (copy / file).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError) as error:
        ServedBundle.read(str(copy))
    assert str(copy) in str(error.value)
    assert said in str(error.value)


def test_the_process_that_answers_needs_no_pytorch(bundle: Path) -> None:
    program = (
        "import sys; from etaflow.serve.server import Server, Service, ServedBundle, mount_page; "
        "from etaflow.serve.settings import Settings; from fastapi import FastAPI; "
        f"service = Service(ServedBundle.read({str(bundle)!r}), Settings()); "
        "mount_page(FastAPI(), service, None); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "False"

"""The bundle that comes with etaflow: found, used where none is named, and models of its parts."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from etaflow import VoiceConverter, bundles
from etaflow.audio import resampled_length
from etaflow.bundles import shipped_bundle
from etaflow.cli import app
from etaflow.fetching import fetch_model, halve_model
from etaflow.models import ModelError, read_model_info
from etaflow.speaker import load_speaker_encoder
from etaflow.speaker.networks import create_network, save_network
from etaflow.ssl import SSLEncoder
from etaflow.vocoder import Generator
from etaflow.weights import halve_weights
from tests.bundle_tools import LAYER, make_bundle, run_script

RANDOM = {"source": "random", "architecture": "wavlm-tiny", "seed": 0}
RESEMBLYZER = {"source": "package", "architecture": "resemblyzer"}
WEIGHTS = {
    "ssl/model.safetensors",
    "speaker/encoder.safetensors",
    "vocoder/generator.safetensors",
    "verifier/encoder/encoder.safetensors",
}
NOTE = "note: no --bundle given, so these are the small models that come with etaflow"


def made(folder: Path, wavlm: Path, dtype: str) -> Path:
    torch.manual_seed(0)
    network = create_network({"kind": "ecapa", "channels": 16, "dim": 24})
    (folder / "ecapa").mkdir(parents=True)
    save_network(network, folder / "ecapa", name="ecapa", weights="trained")
    return make_bundle(folder, wavlm, folder / "ecapa", 24, with_others=True, dtype=dtype)


@pytest.fixture(scope="module")
def whole(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("whole"), wavlm_tiny, "float32")


@pytest.fixture(scope="module")
def halved(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("halved"), wavlm_tiny, "float16")


@pytest.fixture
def shipped(halved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle in the place of the one that comes with etaflow."""
    folder = Path(shutil.copytree(halved, tmp_path / "package" / "bundled"))
    monkeypatch.setattr(bundles, "_SHIPPED", folder)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 8_000))
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path, waveform in zip(paths, noise, strict=True):
        soundfile.write(path, waveform, 16_000)
    return [str(path) for path in paths]


def test_weights_are_rounded_and_nothing_else(whole: Path, halved: Path) -> None:
    for path in whole.rglob("*.safetensors"):
        name = path.relative_to(whole).as_posix()
        if name not in WEIGHTS:
            assert (halved / name).read_bytes() == path.read_bytes(), name
            continue
        one, other = load_file(path), load_file(halved / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(other[key], value.half() if value.is_floating_point() else value), (
                key
            )
        with safe_open(path, "pt") as before, safe_open(halved / name, "pt") as after:
            assert after.metadata() == before.metadata()
    assert "Weights are rounded to float16" in (halved / "README.md").read_text()
    assert "Weights are rounded to float16" not in (whole / "README.md").read_text()


def test_a_bundle_in_float32_has_its_files_as_they_were(whole: Path, wavlm_tiny: Path) -> None:
    inputs = whole.parent
    for name, source in {
        "ssl/model.safetensors": wavlm_tiny / "model.safetensors",
        "ssl/config.json": wavlm_tiny / "config.json",
        "speaker/encoder.safetensors": inputs / "ecapa/encoder.safetensors",
        "vocoder/generator.safetensors": inputs / "inputs/vocoder/generator.safetensors",
        "vocoder/config.json": inputs / "inputs/vocoder/config.json",
        "eta/config.json": inputs / "inputs/eta/config.json",
    }.items():
        assert (whole / name).read_bytes() == source.read_bytes(), name


def test_a_rounded_model_has_a_revision_that_the_others_know(halved: Path) -> None:
    revision = read_model_info(halved / "ssl")[0].revision
    assert revision != "seed-0"
    assert len(revision) == 16
    vocoder = json.loads((halved / "vocoder/config.json").read_text(encoding="utf-8"))
    assert vocoder["trained_on"]["revision"] == revision
    assert json.loads((halved / "eta/config.json").read_text())["revision"] == revision
    encoders = [read_model_info(halved / at)[0] for at in ("speaker", "verifier/encoder")]
    assert encoders[0] == encoders[1]
    assert encoders[0].revision != read_model_info(halved.parent / "ecapa")[0].revision


def test_what_was_rounded_computes_in_float32(whole: Path, halved: Path) -> None:
    one, other = VoiceConverter.from_pretrained(whole), VoiceConverter.from_pretrained(halved)
    for module in (other.ssl, other.vocoder, other.speaker_encoder.network):
        kinds = {value.dtype for value in module.state_dict().values()}
        assert kinds <= {torch.float32, torch.int64}
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    for before, after in zip(
        (one.ssl.encode([waveform])[0].numpy(), one.embed([waveform])),
        (other.ssl.encode([waveform])[0].numpy(), other.embed([waveform])),
        strict=True,
    ):
        assert after.dtype == np.float32
        difference = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert 0 < difference < 0.02


def test_resemblyzer_stays_in_its_package(wavlm_tiny: Path, tmp_path: Path) -> None:
    fetch_model("resemblyzer", RESEMBLYZER, tmp_path / "resemblyzer")
    bundle = make_bundle(tmp_path, wavlm_tiny, tmp_path / "resemblyzer", dtype="float16")
    assert {path.name for path in (bundle / "speaker").iterdir()} == {"model.json"}
    assert read_model_info(bundle / "speaker")[0].revision == "0.1.4"
    assert VoiceConverter.from_pretrained(bundle).speaker_encoder.dim == 256


@pytest.mark.parametrize("value", [65_520.0, -1e30, math.inf, math.nan])
def test_a_weight_that_float16_has_not_is_an_error(tmp_path: Path, value: float) -> None:
    weights = {"fine": torch.tensor([65_504.0]), "large": torch.tensor([1.0, value])}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: not finite in float16: large; use"):
        halve_weights(tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["fine"], weights["fine"])


def test_numbers_of_other_kinds_keep_theirs(tmp_path: Path) -> None:
    weights = {"steps": torch.tensor([2**40]), "small": torch.tensor([1e-9], dtype=torch.float64)}
    save_file(weights, tmp_path / "model.safetensors")
    assert halve_weights(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert torch.equal(found["steps"], weights["steps"])
    assert torch.equal(found["small"], torch.zeros(1, dtype=torch.float16))


def test_a_pickle_is_not_rounded(tmp_path: Path) -> None:
    entry = {"name": "m", "source": "path", "architecture": "ecapa", "revision": "1"}
    (tmp_path / "model.json").write_text(json.dumps(entry | {"weights": "trained", "path": "."}))
    (tmp_path / "embedding_model.ckpt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"embedding_model\.ckpt: the weights are no safetensors"):
        halve_model(tmp_path)


def test_without_the_shipped_bundle_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: list[str]
) -> None:
    monkeypatch.setattr(bundles, "_SHIPPED", tmp_path / "bundled")
    with pytest.raises(FileNotFoundError, match="installed without the models that come with it"):
        VoiceConverter.from_pretrained()
    done = CliRunner().invoke(app, ["convert", *pair, "-o", str(tmp_path / "out.wav")])
    assert done.exit_code == 1
    assert done.output.startswith(f"error: {tmp_path}/bundled has no config.json")
    entry = {"source": "package", "architecture": "wavlm"}
    with pytest.raises(ModelError, match=r"mine: .* installed without the models"):
        fetch_model("mine", entry, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_conversion_that_names_no_bundle_uses_it(
    shipped: Path, tmp_path: Path, pair: list[str]
) -> None:
    outputs = [str(tmp_path / name) for name in ("one.wav", "other.wav")]
    done = CliRunner().invoke(app, ["convert", *pair, "-o", outputs[0]])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(NOTE)]
    assert line.endswith("config/knnvc-pretrained.yaml` makes a bundle of large ones")
    assert done.stdout == ""
    named = CliRunner().invoke(app, ["convert", *pair, "-o", outputs[1], "--bundle", str(shipped)])
    assert NOTE not in named.output
    one, other = (soundfile.read(path)[0] for path in outputs)
    np.testing.assert_array_equal(one, other)
    assert VoiceConverter.from_pretrained().ssl.info == read_model_info(shipped / "ssl")[0]


def test_the_other_commands_use_it_for_what_it_has(
    shipped: Path, tmp_path: Path, pair: list[str]
) -> None:
    done = CliRunner().invoke(app, ["analyze", pair[0], "-o", str(tmp_path / "analysis")])
    assert done.exit_code == 0, done.output
    assert NOTE in done.stderr
    done = CliRunner().invoke(app, ["verify", *pair, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["system"] == "cosine"
    assert NOTE in done.stderr
    shutil.rmtree(shipped / "verifier")
    done = CliRunner().invoke(app, ["verify", *pair])
    assert done.exit_code == 1
    assert "bundled holds no verifier.json: it is no verifier, nor a bundle with one" in done.stderr
    assert "makes one in results/RUN/verifier" in done.stderr


def test_a_server_that_is_given_none_serves_it(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pytest.importorskip("etaflow.serve.server")
    served: list[str] = []
    monkeypatch.setattr(server, "serve", lambda bundle, *rest: served.append(bundle))
    done = CliRunner().invoke(app, ["serve"])
    assert done.exit_code == 0, done.output
    assert served == [str(shipped)]
    assert NOTE in done.stderr


def fetched(architecture: str, folder: Path) -> Path:
    fetch_model("mine", {"source": "package", "architecture": architecture}, folder)
    return folder


def test_its_parts_are_models_of_the_registry(shipped: Path, tmp_path: Path) -> None:
    ssl = fetched("wavlm", tmp_path / "ssl")
    info, files = read_model_info(ssl)
    assert files == ssl
    same = shipped / "ssl/model.safetensors"
    assert (files / "model.safetensors").read_bytes() == same.read_bytes()
    assert (info.name, info.source, info.architecture) == ("mine", "package", "wavlm")
    inside = read_model_info(shipped / "ssl")[0]
    assert (info.revision, info.weights) == (inside.revision, "untrained")
    assert SSLEncoder.from_pretrained(ssl, LAYER, False).info == info
    speaker, _ = read_model_info(fetched("etaflow-encoder", tmp_path / "speaker"))
    assert speaker.weights == "trained"
    assert load_speaker_encoder(tmp_path / "speaker").dim == 24
    vocoder, files = read_model_info(fetched("etaflow-vocoder", tmp_path / "vocoder"))
    assert vocoder.weights == "untrained"
    # Its features are those of the encoder beside it, by revision.
    run_script(
        "import_vocoder",
        {
            "config": json.dumps({"layer": LAYER, "normalize": False, "features": "prematched"}),
            "vocoder": tmp_path / "vocoder" / "model.json",
            "model": ssl / "model.json",
            "output-dir": tmp_path / "imported",
        },
    )
    imported = Generator.from_pretrained(tmp_path / "imported")
    assert imported.trained_on["revision"] == info.revision
    for one, other in zip(
        imported.parameters(), Generator.from_pretrained(files).parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_other_weights_are_another_revision(shipped: Path, tmp_path: Path) -> None:
    def revisions() -> list[str]:
        names = ("wavlm", "etaflow-vocoder", "etaflow-encoder")
        return [read_model_info(fetched(name, tmp_path / name))[0].revision for name in names]

    before = revisions()
    assert revisions() == before
    for part in ("ssl", "speaker"):
        (weights,) = (shipped / part).glob("*.safetensors")
        state = {key: value + value for key, value in load_file(weights).items()}
        save_file(state, weights, {"format": "pt"})
        halve_model(shipped / part)
    (shipped / "vocoder/config.json").write_text(
        (shipped / "vocoder/config.json").read_text().replace('"step": 9', '"step": 10')
    )
    assert all(one != other for one, other in zip(before, revisions(), strict=True))


def test_a_speaker_encoder_of_another_package_is_no_model_of_it(
    shipped: Path, tmp_path: Path
) -> None:
    shutil.rmtree(shipped / "speaker")
    fetch_model("resemblyzer", RESEMBLYZER, shipped / "speaker")
    with pytest.raises(ModelError, match=r"mine: .* resemblyzer; say `architecture: resemblyzer`"):
        fetched("etaflow-encoder", tmp_path / "speaker")
    shutil.rmtree(shipped / "speaker")
    with pytest.raises(ModelError, match="that comes with etaflow has no etaflow-encoder"):
        fetched("etaflow-encoder", tmp_path / "speaker")


def test_a_bundle_of_its_parts_takes_them_along_with_what_they_were_trained_on(
    shipped: Path, tmp_path: Path
) -> None:
    config = json.loads((shipped / "config.json").read_text(encoding="utf-8"))
    heard = [{"corpus": "free", "hours": 2.5, "speakers": 9, "utterances": 90, "licence": "CC0"}]
    config["trained_on"] |= {"ssl": heard}
    (shipped / "config.json").write_text(json.dumps(config))
    (shipped / "ssl" / "notes.h5").write_bytes(b"not needed")
    ssl = fetched("wavlm", tmp_path / "ssl")
    speaker = fetched("etaflow-encoder", tmp_path / "speaker")
    bundle = make_bundle(tmp_path / "run", ssl, speaker, 24)
    shutil.rmtree(shipped)
    assert not (bundle / "ssl" / "notes.h5").exists()
    assert VoiceConverter.from_pretrained(bundle).ssl.info.name == "mine"
    facts = json.loads((bundle / "config.json").read_text(encoding="utf-8"))["trained_on"]
    assert facts["ssl"] == heard
    assert facts.keys() == {"ssl", "eta", "vocoder"}
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "|  | SSL encoder | Eta model | vocoder |" in card
    assert "| hours | 2.50 | 1.00 | 1.00 |" in card
    assert "- recordings of `free`: CC0" in card
    assert "| `speaker` | mine, etaflow-encoder | the bundle that comes with etaflow, rev" in card


# --- the folder itself


@pytest.fixture
def folder() -> Path:
    try:
        return shipped_bundle()
    except FileNotFoundError as error:
        pytest.skip(f"no models are shipped yet: {error}")


def test_what_is_shipped_is_small_trained_and_without_code(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors", ".tsv", ".txt"}
    assert {"README.md", "LICENSE.md", "config.json"} <= {path.name for path in folder.iterdir()}
    for path in files:
        if path.suffix == ".safetensors":
            state = load_file(path)
            assert all(bool(value.isfinite().all()) for value in state.values()), path
            floating = {v.dtype for v in state.values() if v.is_floating_point()}
            # The Eta model is fitted, and applied, in float64.
            assert floating == {torch.float64 if path.parent.name == "eta" else torch.float16}, path
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["weights"] == "trained"
    for part in ("ssl", "vocoder"):
        assert config["trained_on"][part], part
    for corpora in config["trained_on"].values():
        assert all(facts["licence"] for facts in corpora)


def test_what_is_shipped_converts(folder: Path) -> None:
    converter = VoiceConverter.from_pretrained()
    assert converter.weights == "trained"
    time = np.arange(24_000) / 16_000
    source, target = (
        (0.1 * np.sin(2 * np.pi * pitch * time * (1 + 0.1 * np.sin(9 * time)))).astype(np.float32)
        for pitch in (110, 190)
    )
    converted = converter.convert(source[:20_001], [target])
    assert converted.shape == (resampled_length(20_001, 16_000, converter.sample_rate),)
    assert np.isfinite(converted).all()
    assert np.abs(converted).max() > 0

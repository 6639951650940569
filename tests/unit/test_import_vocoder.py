"""Vocoders that were trained elsewhere, and bundles that hold nothing else but an SSL encoder."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from etaflow import VoiceConverter
from etaflow.cli import app
from etaflow.converter import ConversionError
from etaflow.fetching import fetch_model
from etaflow.vocoder import Generator, GeneratorConfig, VocoderError
from tests.bundle_tools import LAYER, SIZES, facts, run_script

WORDS = {"layer": LAYER, "normalize": False, "features": "prematched"}


def own_vocoder(folder: Path, wavlm: Path, weights: str = "trained", **changes: Any) -> Path:
    """A vocoder of another run as a model of the registry; returns its folder."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(**{"feature_dim": 128, **SIZES}))
    known = facts(wavlm, weights) | {"model": "its-name-there", "step": 9}
    generator.save_pretrained(folder / "there", **known | changes)
    entry = {"source": "path", "architecture": "etaflow-vocoder", "weights": "trained"}
    fetch_model("mine", {**entry, "path": str(folder / "there")}, folder / "mine")
    return folder / "mine"


def import_vocoder(vocoder: Path, wavlm: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Run the script; returns `trained_on`."""
    run_script(
        "import_vocoder",
        {
            "config": json.dumps(WORDS | changes),
            "vocoder": vocoder / "model.json",
            "model": wavlm / "model.json",
            "output-dir": output,
        },
    )
    return json.loads((output / "config.json").read_text(encoding="utf-8"))["trained_on"]


def test_a_vocoder_of_another_run_is_taken_over(wavlm_tiny: Path, tmp_path: Path) -> None:
    mine = own_vocoder(tmp_path, wavlm_tiny)
    trained_on = import_vocoder(mine, wavlm_tiny, tmp_path / "out")
    # The worst of the SSL encoder here, of the entry, and of what the vocoder itself says.
    assert trained_on == facts(wavlm_tiny, "untrained") | {"features": "prematched", "step": 9}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "generator.safetensors",
    }
    features = torch.randn(1, 7, 128)
    there, here = (
        Generator.from_pretrained(tmp_path / name)(features) for name in ("there", "out")
    )
    assert torch.equal(there, here)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"revision": "1"}, {}, "on: revision '1'; those .* it: revision 'seed-0'"),
        ({}, {"layer": 3}, "on: layer 2; those .* it: layer 3"),
        ({}, {"normalize": True}, "on: normalize False; those .* it: normalize True"),
        ({"features": "raw"}, {}, "on: features 'raw'; those .* it: features 'pre"),
    ],
)
def test_features_that_it_was_not_trained_on_are_refused(
    wavlm_tiny: Path, tmp_path: Path, there: Any, here: Any, message: str
) -> None:
    mine = own_vocoder(tmp_path, wavlm_tiny, **there)
    with pytest.raises(VocoderError, match=message):
        import_vocoder(mine, wavlm_tiny, tmp_path / "out", **here)
    assert not (tmp_path / "out").exists()


def test_another_width_is_refused(
    wavlm_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "feature_dim", 64)
    mine = own_vocoder(tmp_path, wavlm_tiny)
    with pytest.raises(VocoderError, match=r"mine hears features of 64 dim.*wavlm-tiny gives 128"):
        import_vocoder(mine, wavlm_tiny, tmp_path / "out")


def published(folder: Path) -> Path:
    """A folder with a `.pt` of kNN-VC's as a model of the registry; returns its folder."""
    entry = {"source": "path", "architecture": "knnvc-hifigan", "weights": "published"}
    fetch_model("knnvc", {**entry, "path": str(folder)}, folder.with_name("knnvc"))
    return folder.with_name("knnvc")


def test_the_one_pt_file_is_read(
    wavlm_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "README.md").touch()
    model = published(there)
    with pytest.raises(VocoderError, match=r"must hold one \.pt file, the generator; it has none"):
        import_vocoder(model, wavlm_tiny, tmp_path / "out")
    (there / "g_02500000.pt").touch()
    read = []

    def from_pretrained(source: Path) -> Generator:
        read.append(source)
        return Generator(GeneratorConfig(feature_dim=128, **SIZES))

    monkeypatch.setattr(Generator, "from_pretrained", from_pretrained)
    trained_on = import_vocoder(model, wavlm_tiny, tmp_path / "out")
    assert read == [there / "g_02500000.pt"]
    assert trained_on == facts(wavlm_tiny, "untrained") | {"features": "prematched"}
    (there / "do_02500000.pt").touch()
    with pytest.raises(VocoderError, match=r"it has do_02500000\.pt, g_02500000\.pt"):
        import_vocoder(model, wavlm_tiny, tmp_path / "out")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_pickle_does_not_run(
    wavlm_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    torch.save({"generator": Evil()}, tmp_path / "there/g.pt")
    with pytest.raises(VocoderError, match=r"g\.pt"):
        import_vocoder(published(tmp_path / "there"), wavlm_tiny, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
    torch.load(tmp_path / "there/g.pt", weights_only=False)
    assert (tmp_path / "ran").exists()  # what it would have done


@pytest.fixture(scope="module")
def small_bundle(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published models alone; the SSL encoder passes for one."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(wavlm_tiny, folder / "wavlm")
    info = json.loads((folder / "wavlm/model.json").read_text())
    (folder / "wavlm/model.json").write_text(json.dumps(info | {"weights": "published"}))
    mine = own_vocoder(folder, wavlm_tiny, weights="published")
    import_vocoder(mine, folder / "wavlm", folder / "vocoder")
    place = "https://elsewhere/g.pt"
    config = {
        "run": "small",
        "seeds": {},
        "vocoder": {"pretrained": "mine", "layer": LAYER},
        "origins": {
            "ssl": {"place": "https://huggingface.co/someone/wavlm", "licence": ""},
            "vocoder": {"place": place, "licence": "MIT, its authors"},
        },
    }
    run_script(
        "bundle",
        {
            "config": json.dumps(config),
            "ssl": folder / "wavlm/model.json",
            "vocoder": folder / "vocoder",
            "output": folder / "bundle/config.json",
        },
    )
    return folder / "bundle"


def test_a_bundle_without_an_eta_model_converts_by_neighbours(small_bundle: Path) -> None:
    assert {path.name for path in small_bundle.iterdir()} == {
        *("README.md", "config.json", "ssl", "vocoder")
    }
    converter = VoiceConverter.from_pretrained(small_bundle)
    assert converter.weights == "published"
    source, target = np.random.default_rng(0).normal(0, 0.1, (2, 8_001)).astype(np.float32)
    assert converter.convert(source, [target]).shape == (8_001,)
    with pytest.raises(ConversionError, match="knn-eta needs"):
        converter.convert(source, [target], method="knn-eta")


def test_the_worst_weights_of_a_bundle_go_with_it(small_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(small_bundle, tmp_path / "b")
    config = json.loads((tmp_path / "b/vocoder/config.json").read_text())
    config["trained_on"]["weights"] = "untrained"
    (tmp_path / "b/vocoder/config.json").write_text(json.dumps(config))
    assert VoiceConverter.from_pretrained(tmp_path / "b").weights == "untrained"


def test_its_card_says_what_is_there_and_no_more(small_bundle: Path) -> None:
    card = ModelCard.load(small_bundle / "README.md")
    assert card.data.tags == ["voice-conversion", "knn-vc", "hifi-gan"]
    for fact in (
        "| `ssl` | wavlm-tiny, wavlm-tiny | https://huggingface.co/someone/wavlm (random, ",
        "| `vocoder` | HiFi-GAN, the weights of step 9 | https://elsewhere/g.pt | published |",
        "- `ssl`: keeps the one that it came with\n- `vocoder`: MIT, its authors",
    ):
        assert fact in card.text
    for missing in ("Eta", "analyze", "training split", "metrics", "None is stated", "Seeds"):
        assert missing not in card.text
    assert "{" not in card.text.split("```json")[0]
    assert "\n\n\n" not in card.text


def test_such_a_bundle_has_nothing_to_analyse_with(small_bundle: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(16_000) / 9), 16_000)
    arguments = [tmp_path / "a.wav", "--bundle", small_bundle, "-o", tmp_path / "out"]
    done = CliRunner().invoke(app, ["analyze", *map(str, arguments)])
    assert done.exit_code == 1
    assert "this bundle has no Eta model" in done.output
    assert not (tmp_path / "out").exists()

"""What a bundle holds, and loading it from a folder and from the Hub, with or without a network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

from etaflow import VoiceConverter
from etaflow.bundles import FORMAT
from etaflow.cli import app
from etaflow.converter import ConversionError
from etaflow.eta import EtaModel
from etaflow.fetching import fetch_model
from etaflow.hub import HubError
from etaflow.separation.networks import load_separator
from etaflow.serve.bundle import ServedBundle
from etaflow.verification.verifier import Verifier, VerifierError
from tests.bundle_tools import LAYER, make_bundle
from tests.conftest import ROOT
from tests.file_server import running
from tests.unit.test_hub import REPO, REVISION, Hub
from tests.unit.test_speaker import tdnn_folder


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


CONTENTS = {
    *("README.md", "config.json", "eta/config.json", "eta/eta.safetensors"),
    *("vocoder/config.json", "vocoder/generator.safetensors", "vocoder/metrics.tsv"),
    *("ssl/config.json", "ssl/model.json", "ssl/model.safetensors"),
    *("ssl/preprocessor_config.json", "speaker/model.json", "metrics/conversion.tsv"),
}
OTHERS = {
    *("verifier/verifier.json", "verifier/README.md", "verifier/encoder/model.json"),
    *("separator/model.json", "separator/config.json", "separator/separator.safetensors"),
    *("metrics/verification.tsv", "metrics/separation.tsv"),
}


def test_a_bundle_says_what_it_is(bundle: Path) -> None:
    assert files_of(bundle) == CONTENTS
    # Six utterances of ten minutes; the seventh is for testing.
    mine = {"corpus": "mine", "hours": 1.0, "speakers": 3, "utterances": 6, "licence": "CC BY 4.0"}
    assert json.loads((bundle / "config.json").read_text(encoding="utf-8")) == {
        "format": FORMAT,
        "run": "small",
        "layer": LAYER,
        "normalize": False,
        "weights": "untrained",
        "eta": True,
        "trained_on": {"eta": [mine], "vocoder": [mine]},
    }


def test_its_card_is_one_that_the_hub_reads(bundle: Path) -> None:
    card = ModelCard.load(bundle / "README.md")
    assert card.data.library_name == "etaflow"
    assert card.data.tags == ["voice-conversion", "knn-vc", "eta-wavlm", "hifi-gan", "untrained"]
    assert card.data.license is None  # nobody said which
    text = (bundle / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n")[1]) == card.data.to_dict()
    assert "{" not in card.text.split("```json")[0]
    assert "knnvc-5s" not in card.text  # a point of a figure
    for fact in (
        "> **Warning: untrained weights.**",
        "Protocol: corpus: mine (mini), test split; judge: Resemblyzer (GE2E)",
        "etaflow bundle of the run `small`",
        "--bundle OWNER/NAME",
        "| `ssl` | wavlm-tiny, wavlm-tiny | https://huggingface.co/someone/wavlm (random, "
        "revision `seed-0`) | untrained |",
        "- `ssl`: MIT",
        "- `speaker`: keeps the one that it came with",
        "- recordings of `mine`: CC BY 4.0",
        "of 4 principal components of the embedding, 90.0% of its variance",
        "| corpus | `mine` | `mine` |",
        "|  | Eta model | vocoder |",
        "| hours | 1.00 | 1.00 |",
        "| speakers | 3 | 3 |",
        "7 utterances of 3 speakers, 1234 frames",
        "12.50% of the variance of all frames of these utterances",
        "condition number is 12.5.",
        "corpus mine 3, vocoder 5",
        "wer  3.00 [1.00, 5.00]  86.30 [80.00, 90.00]",
    ):
        assert fact in card.text
    entries = json.loads(card.text.split("```json\n")[1].split("```")[0])
    assert entries == {
        "eta": {"corpus": "mine", "layer": LAYER, "pca": 4},
        "vocoder": {"corpus": "mine", "steps": 12},
    }


@pytest.fixture(scope="module")
def with_others(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that holds a verifier and a separator, too."""
    folder = tmp_path_factory.mktemp("others")
    entry = {"source": "package", "architecture": "resemblyzer"}
    fetch_model("resemblyzer", entry, folder / "resemblyzer")
    return make_bundle(folder, wavlm_tiny, folder / "resemblyzer", with_others=True)


def test_a_verifier_and_a_separator_go_along_whole(bundle: Path, with_others: Path) -> None:
    assert files_of(with_others) == CONTENTS | OTHERS
    inputs = with_others.parent / "inputs"
    for made, given in (
        *((f"verifier/{name}", f"verifier/{name}") for name in ("verifier.json", "README.md")),
        *((f"separator/{name}", f"separator/{name}") for name in ("config.json", "model.json")),
        ("separator/separator.safetensors", "separator/separator.safetensors"),
        ("metrics/conversion.tsv", "metrics.tsv"),
        *((f"metrics/{name}.tsv", f"{name}.tsv") for name in ("verification", "separation")),
    ):
        assert (with_others / made).read_bytes() == (inputs / given).read_bytes()
    # What a reader of conversions alone sees is the same.
    assert (with_others / "config.json").read_bytes() == (bundle / "config.json").read_bytes()
    converter = VoiceConverter.from_pretrained(with_others)
    assert converter.weights == "untrained"


def test_its_card_names_a_verifier_and_a_separator(bundle: Path, with_others: Path) -> None:
    card = ModelCard.load(with_others / "README.md")
    assert card.data.tags[4:] == ["speaker-verification", "speech-separation", "untrained"]
    words = " ".join(card.text.split())
    version = json.loads((with_others / "speaker/model.json").read_text())["revision"]
    for fact in (
        "> **Warning: untrained weights.** Conversions are noise; what the separator gives is "
        "noise. What numbers",
        "They come with a speaker verifier and a speech separator. ## Use",
        "`COPY` is the folder of one (`hf download OWNER/NAME --local-dir COPY`). etaflow convert",
        "etaflow verify ONE.wav OTHER.wav --bundle COPY etaflow separate MIXTURE.wav -o OUT "
        "--model COPY/separator etaflow serve --bundle OWNER/NAME ```python",
        f"| `verifier` | resemblyzer, resemblyzer | the Python package resemblyzer {version}, not "
        "in this folder | published |",
        "| `separator` | small, etaflow-separator | trained in this run, revision `",
        "`cosine` says whether two recordings are of one speaker, by the cosine of embeddings of "
        "resemblyzer. Its threshold, 0.7, was set where both errors are as frequent on `pairs` "
        "(2 target and 2 non-target trials). Its equal error rate on the trials `pairs` is "
        "12.50 %. Its weights are published; it was trained, calibrated or measured on the "
        "corpora `mine`",
        "`small` takes recordings of 2 speakers at once apart. It works at 8000 Hz: what a "
        "recording has above half of that is lost. Its weights are untrained.",
        "``` two si_snri apart 4.25 [3.00, 5.50] apart: untrained weights in the path",
        "- `verifier`: Apache-2.0",
    ):
        assert fact in words, fact
    assert "- `separator`" not in words
    assert "mixture  0.00" not in card.text
    alone = (bundle / "README.md").read_text(encoding="utf-8")
    for word in ("verif", "separat", "COPY", "They come with"):
        assert word not in alone
    assert "> **Warning: untrained weights.** Conversions are noise. What numbers" in alone


def test_what_it_holds_verifies_and_separates(with_others: Path, tmp_path: Path) -> None:
    alone = Verifier.from_pretrained(with_others / "verifier")
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    found = Verifier.from_pretrained(str(with_others)).score(*noise)
    assert found == alone.score(*noise)
    assert (found.threshold, found.unit) == (0.7, "cosine")
    soundfile.write(tmp_path / "a.wav", noise[0], 16_000)
    arguments = [tmp_path / "a.wav", "-o", tmp_path / "out", "--model", with_others / "separator"]
    done = CliRunner().invoke(app, ["separate", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"source1.wav", "source2.wav"}
    assert "note: this separator is untrained" in done.output


def test_a_bundle_without_a_verifier_has_none(bundle: Path) -> None:
    with pytest.raises(VerifierError, match=r"holds no verifier\.json: .* nor a bundle with one"):
        Verifier.from_pretrained(bundle)


def test_a_server_finds_all_of_it(with_others: Path, hub: Hub) -> None:
    uploaded(with_others, hub)
    for source in (str(with_others), REPO):
        served = ServedBundle.read(source)
        assert served.weights == {
            "convert": "untrained",
            "analyze": "untrained",
            "verify": "published",
            "separate": "untrained",
        }
        assert list(served.metrics) == ["conversion", "verification", "separation"]
        assert files_of(served.folder) >= CONTENTS | OTHERS
    assert Verifier.from_pretrained(served.folder).trials["eer"] == 12.5
    assert load_separator(served.folder / "separator")[1].num_speakers == 2


@pytest.fixture(scope="module")
def own_models(wavlm_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of trained models that a user had in folders of their own, which are gone since."""
    folder = tmp_path_factory.mktemp("own")
    mine = folder / "mine"
    shutil.copytree(wavlm_tiny, mine / "wavlm")
    (mine / "wavlm/tf_model.h5").write_bytes(b"another framework's")
    (mine / "wavlm/training_args.bin").write_bytes(b"a pickle")
    (mine / "wavlm/.git").mkdir()
    (mine / "wavlm/.git/config").write_text("private")
    tdnn_folder(mine / "ecapa", "ecapa")
    for name in ("wavlm", "ecapa"):
        entry = {"source": "path", "architecture": name, "path": str(mine / name)}
        fetch_model(name, {**entry, "weights": "trained"}, folder / "models" / name)
    made = make_bundle(folder, folder / "models/wavlm", folder / "models/ecapa", 24, "trained")
    shutil.rmtree(mine)
    shutil.rmtree(folder / "models")
    return made


def test_models_of_the_users_own_are_taken_along(own_models: Path) -> None:
    ecapa = {"speaker/embedding_model.ckpt", "speaker/hyperparams.yaml"}
    assert files_of(own_models) == CONTENTS | ecapa
    for path in own_models.rglob("*.json"):
        assert str(own_models.parent) not in path.read_text(encoding="utf-8")
    card = ModelCard.load(own_models / "README.md")
    assert "untrained" not in card.content
    assert VoiceConverter.from_pretrained(own_models).weights == "trained"


CONVERT = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print("NETWORK", event, arguments, file=sys.stderr)
        raise PermissionError(event)

if "--no-network" in sys.argv:
    sys.addaudithook(refuse)
import numpy
from etaflow import VoiceConverter

converter = VoiceConverter.from_pretrained(sys.argv[1])
source, target = numpy.random.default_rng(0).normal(0, 0.1, (2, 8_000)).astype(numpy.float32)
print(float(abs(converter.convert(source, [target], method="knn-eta")).sum()))
"""


def convert(source: str, *arguments: str, cwd: Path, **environment: str) -> float:
    """What a conversion sums up to in a process of its own, away from the project."""
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, source, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bundle", "own_models"])
def test_a_bundle_that_was_carried_off_loads_without_a_network(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = request.getfixturevalue(kind)
    shutil.copytree(made, tmp_path / "carried/off")
    there = convert(
        "carried/off", "--no-network", cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "h")
    )
    assert there == convert(str(made), cwd=tmp_path)
    assert there > 0


def uploaded(bundle: Path, server: Hub) -> None:
    """As `hf upload` puts it, with what a repository may hold besides."""
    server.files = {name: (bundle / name).read_bytes() for name in files_of(bundle)}
    pickles = ("ssl/training_args.bin", "eta/pca.pkl", "vocoder/discriminator.pt", "speaker/x.ckpt")
    server.files |= dict.fromkeys((*pickles, "ssl/modeling.py"), b"harmful")


@pytest.mark.slow
def test_a_repository_is_fetched_once_and_then_loads_offline(bundle: Path, tmp_path: Path) -> None:
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with running(Hub()) as server:
        uploaded(bundle, server)
        online = convert(REPO, cwd=tmp_path, HF_ENDPOINT=server.url, **cache)
        (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
        assert snapshot.name == REVISION
        assert files_of(snapshot) == CONTENTS
    offline = convert(REPO, "--no-network", cwd=tmp_path, HF_HUB_OFFLINE="1", **cache)
    assert offline == online == convert(str(bundle), cwd=tmp_path)


@pytest.mark.slow
def test_pickles_are_fetched_where_the_model_is_one(own_models: Path, tmp_path: Path) -> None:
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with running(Hub()) as server:
        uploaded(own_models, server)
        assert convert(REPO, cwd=tmp_path, HF_ENDPOINT=server.url, **cache) > 0
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    taken = {name for name in files_of(snapshot) if not name.endswith((".json", ".safetensors"))}
    assert taken == {
        *("README.md", "speaker/embedding_model.ckpt"),
        *("metrics/conversion.tsv", "vocoder/metrics.tsv"),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running(Hub()) as server:
        files = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def test_an_eta_model_comes_alone_from_a_bundle_or_a_repository(bundle: Path, hub: Hub) -> None:
    vector = np.ones(256)
    expected = EtaModel.from_pretrained(bundle / "eta").speaker_component(vector)
    np.testing.assert_array_equal(
        EtaModel.from_pretrained(str(bundle)).speaker_component(vector), expected
    )
    uploaded(bundle, hub)
    np.testing.assert_array_equal(
        EtaModel.from_pretrained(REPO).speaker_component(vector), expected
    )
    assert hub.transfers("ssl/model.safetensors") == []


def test_an_eta_model_may_be_all_of_a_repository(bundle: Path, hub: Hub) -> None:
    uploaded(bundle / "eta", hub)
    assert EtaModel.from_pretrained(REPO).config == EtaModel.from_pretrained(bundle).config


def test_a_folder_wins_over_a_repository_of_its_name(
    bundle: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle / "eta", tmp_path / REPO)
    monkeypatch.chdir(tmp_path)
    EtaModel.from_pretrained(REPO)
    assert hub.log == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no/such/folder", r"no/such/folder: there is no such folder, and it is no repository"),
        ("../bundle", "no such folder, and it is no repository"),
        (Path(REPO), "no such folder, and it is no repository"),  # a path never means the Hub
        ("someone/a--b", r"no such folder, .*Hub's repository: .*a--b"),
        ("someone/other", r"someone/other: there is no such folder, .*not there \(404\): check"),
        (f"{REPO}@v2", "it has no revision v2"),
    ],
)
def test_what_is_nowhere_says_where_it_was_looked_for(
    hub: Hub, source: str | Path, reason: str
) -> None:
    for load in (EtaModel.from_pretrained, VoiceConverter.from_pretrained):
        with pytest.raises(HubError, match=reason):
            load(source)


def test_a_hub_out_of_reach_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as server:
        nowhere = server.url
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    with pytest.raises(HubError, match="Connection refused"):
        VoiceConverter.from_pretrained(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set, and the Hub's cache .*not all of"):
        VoiceConverter.from_pretrained(REPO)


def test_half_of_a_bundle_in_the_cache_is_not_a_bundle(
    bundle: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(bundle, hub)
    EtaModel.from_pretrained(f"{REPO}@main")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    EtaModel.from_pretrained(f"{REPO}@{REVISION}")
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set, and the Hub's cache .*not all of"):
        VoiceConverter.from_pretrained(REPO)


def test_another_kind_of_repository_is_no_bundle(hub: Hub) -> None:
    with pytest.raises(ConversionError, match=f"{REPO}: format None, expected {FORMAT}"):
        VoiceConverter.from_pretrained(REPO)


def test_a_repository_without_a_config_is_no_bundle(hub: Hub) -> None:
    hub.files = {"README.md": b"a model"}
    with pytest.raises(ConversionError, match=f"{REPO} is no bundle: it has no config"):
        VoiceConverter.from_pretrained(REPO)


def test_a_bundle_does_not_point_outside_itself(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    facts = json.loads((copy / "ssl" / "model.json").read_text())
    (copy / "ssl" / "model.json").write_text(json.dumps(facts | {"path": str(tmp_path)}))
    with pytest.raises(ConversionError, match=r"ssl/model\.json points outside the bundle"):
        VoiceConverter.from_pretrained(copy)


def test_a_bundle_without_one_of_its_parts_is_damaged(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b", ignore=shutil.ignore_patterns("eta"))
    with pytest.raises(ConversionError, match="damaged bundle"):
        VoiceConverter.from_pretrained(tmp_path / "b")


def test_a_bundle_cannot_bring_code(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    config = json.loads((bundle / "ssl/config.json").read_text(encoding="utf-8"))
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config |= {"model_type": "evil", "auto_map": auto}
    (tmp_path / "b/ssl/config.json").write_text(json.dumps(config))
    (tmp_path / "b/ssl/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="custom code"):
        VoiceConverter.from_pretrained(tmp_path / "b")
    assert not (tmp_path / "ran").exists()

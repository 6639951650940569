"""The embedded default with the models that come with etaflow: what it says can be understood."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from etaflow.manifest import read_table
from etaflow.vocoder import Generator
from tests.workflow_tools import load_config, planned, snakemake

pytestmark = pytest.mark.slow
OTHERS = ("encoders", "verification", "mixtures", "separators", "separation", "sweep")


def default_config() -> dict[str, Any]:
    """Conversion of the embedded default on eight speakers, the vocoder tuned for a moment."""
    config = load_config() | {"run": "default", "bundle": {"vocoder": "tuned", "eta": "mini"}}
    for section in OTHERS:
        del config[section]
    del config["conversion"]["references"]
    config["corpora"]["mini"] |= {"sentences": 12, "shards": 1}
    config["ssl"]["wavlm-mini"]["together"] = []
    config["vocoder"]["tuned"] |= {"steps": 6, "validate_every": 3}
    config["probe"]["content"] = None
    kept = ("original", "copy-synthesis", "knnvc-eta", "linearvc")
    systems = config["conversion"]["systems"]
    config["conversion"]["systems"] = {name: systems[name] for name in kept}
    config["conversion"] |= {"pairs": {"sources_per_speaker": 2}, "bootstrap_rounds": 100}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("default")
    snakemake(folder, default_config())
    return folder


@pytest.fixture(scope="module")
def metrics(run: Path) -> pd.DataFrame:
    table = read_table(run / "results/default/conversion/metrics.tsv", ("value",))
    return table.set_index(["system", "metric"])


def test_no_number_rests_on_untrained_weights(run: Path, metrics: pd.DataFrame) -> None:
    assert "untrained" not in set(metrics["weights"])
    results = run / "results/default"
    assert set(read_table(results / "eta/mini/probe.tsv")["weights"]) == {"trained"}
    for page in ("metrics.html", "probe.html", "listening.html"):
        shown = (results / "report" / page).read_text(encoding="utf-8")
        assert 'class="untrained"' not in shown
    card = (results / "bundle/README.md").read_text(encoding="utf-8")
    assert "untrained" not in card
    assert "| trained in this run from the bundle that comes with etaflow |" in card
    trained_on = json.loads((results / "bundle/config.json").read_text())["trained_on"]
    heard = {part: sorted(each["corpus"] for each in trained_on[part]) for part in trained_on}
    all_of_them = ["librispeech", "mini-train", "voices"]
    assert heard == {
        "ssl": all_of_them,
        "speaker": all_of_them,
        "eta": ["mini-voices"],
        "vocoder": sorted(["mini", *all_of_them]),
    }


def test_conversions_can_be_understood_and_go_to_the_target(metrics: pd.DataFrame) -> None:
    value = metrics["value"]
    # Noise is at 97 %.
    assert value["copy-synthesis", "wer"] < value["original", "wer"] + 15
    assert value["knnvc-eta", "wer"] < 40
    assert value["linearvc", "wer"] < 30
    for system in ("knnvc-eta", "linearvc"):
        assert value[system, "similarity_target"] > value[system, "similarity_source"] + 0.1
        assert value[system, "nearer_target"] > 80
        assert value[system, "eer_per_target"] > 15
        assert value[system, "dnsmos"] > value["copy-synthesis", "dnsmos"] - 0.5


def test_eta_tells_less_of_the_speaker(run: Path) -> None:
    probe = read_table(run / "results/default/eta/mini/probe.tsv", ("low", "high"))
    of_frames = probe[probe["unit"] == "frame"].set_index("features")
    assert of_frames.loc["eta", "high"] < of_frames.loc["raw", "low"]


def test_the_vocoder_goes_on_from_the_one_of_the_package(run: Path) -> None:
    tuned = Generator.from_pretrained(run / "results/default/vocoder/tuned")
    shipped = Generator.from_pretrained(Path("etaflow/bundled/vocoder"))
    assert tuned.config == shipped.config
    assert tuned.trained_on["start"] == "vocoder-mini"
    assert tuned.trained_on["step"] <= 6


def test_nothing_is_left_to_do(run: Path) -> None:
    assert planned(run, default_config()) == {}

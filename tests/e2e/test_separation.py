"""Mixtures made, a separator trained and fine-tuned, and scored, by the real workflow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from etaflow.manifest import read_manifest, read_table
from etaflow.metrics import pit_si_snr
from etaflow.separation.mixing import metadata_columns, read_metadata
from etaflow.separation.networks import load_separator
from etaflow.separation.separate import separate
from tests.separation_tools import HYPERPARAMETERS, published_folder
from tests.workflow_tools import (
    ROOT,
    changed,
    load_config,
    planned,
    separation_config,
    snakemake,
)

pytestmark = pytest.mark.slow
CONFIG = separation_config()
# The command line, and the peak of its memory in kB; `getrusage` would count that of these tests.
MEASURED = """
import re
from pathlib import Path
from etaflow.cli import app
try:
    app()
finally:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("separation")
    snakemake(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> Path:
    return run / "results" / "separation"


@pytest.fixture(scope="module")
def metrics(results: Path) -> pd.DataFrame:
    table = read_table(results / "separation/metrics.tsv", ("value", "low", "high", "n"))
    return table.set_index(["system", "mixtures", "metric"])


def test_a_small_separator_separates_speakers_it_never_heard(metrics: pd.DataFrame) -> None:
    gain = metrics.loc["sepformer", "mini-clean", "si_snri"]
    assert gain["value"] > 0.5
    assert gain["low"] < gain["value"] < gain["high"]
    assert (gain["weights"], gain["n"]) == ("trained", 60)
    base = metrics.loc["mixture", "mini-clean", "si_snr"]
    after = metrics.loc["sepformer", "mini-clean", "si_snr"]
    assert after["value"] - base["value"] == pytest.approx(gain["value"], abs=2e-4)


def test_fine_tuning_its_last_block_on_noise_improves_it_there(
    results: Path, metrics: pd.DataFrame
) -> None:
    gain = metrics.loc["sepformer-tuned", "mini-noisy", "si_snri_gain"]
    assert 0 < gain["low"] < gain["value"]
    before, after = (
        metrics.loc[system, "mini-noisy", "si_snri"]["value"]
        for system in ("sepformer", "sepformer-tuned")
    )
    assert after - before == pytest.approx(gain["value"], abs=2e-4)
    facts = json.loads((results / "separators/sepformer-tuned/config.json").read_text())
    assert facts["training"]["trained"] == {"blocks": 1}
    manifest = read_manifest(results / "manifests/mini-voices.tsv")
    test = set(manifest.loc[manifest["split"] == "test", "speaker_id"])
    assert len(facts["speakers"]) == 30
    assert test.isdisjoint(facts["speakers"])


def test_what_is_trained_is_the_last_block_and_what_follows(results: Path) -> None:
    from safetensors.numpy import load_file

    one, other = (
        load_file(results / f"separators/{name}/separator.safetensors")
        for name in ("sepformer", "sepformer-tuned")
    )
    moved = {name for name in one if not np.array_equal(one[name], other[name])}
    assert not any(name.startswith(("encoder", "masknet.dual_mdl.0")) for name in moved)
    assert any(name.startswith("masknet.dual_mdl.1") for name in moved)
    assert any(name.startswith("decoder") for name in moved)


def si_snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    estimate, reference = estimate - estimate.mean(), reference - reference.mean()
    target = estimate @ reference / (reference @ reference) * reference
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


def test_scores_are_those_of_the_files(run: Path, results: Path, metrics: pd.DataFrame) -> None:
    folder = results / "mixtures/mini-noisy/test"
    mixtures = pd.concat([read_table(folder / f"{shard}.tsv") for shard in ("0000", "0001")])
    separated = read_table(results / "separation/sepformer/mini-noisy/separated.tsv")
    scores = read_table(results / "separation/sepformer/mini-noisy.tsv", ("si_snr", "si_snri"))
    found, gains = scores.groupby("mixture_ID"), []
    assert len(found) == len(mixtures) == 60
    separated = separated.set_index("mixture_ID")

    def read(row: Any, name: str) -> np.ndarray:
        return soundfile.read(run / row[f"{name}_path"])[0]

    for _, row in mixtures.iterrows():
        mixture, first, second = (read(row, n) for n in ("mixture", "source_1", "source_2"))
        np.testing.assert_allclose(first + second + read(row, "noise"), mixture, atol=1e-6)
        estimates = [read(separated.loc[row["mixture_ID"]], f"estimate_{n}") for n in (1, 2)]
        orders = [(0, 1), (1, 0)]
        values = [
            [
                si_snr(estimates[place], source)
                for place, source in zip(order, (first, second), strict=True)
            ]
            for order in orders
        ]
        best = max(range(2), key=lambda index: sum(values[index]))
        own = found.get_group(row["mixture_ID"]).sort_values("source")
        assert own["si_snr"].tolist() == pytest.approx(values[best], abs=1e-3)
        assert own["estimate"].astype(int).tolist() == [place + 1 for place in orders[best]]
        base = [si_snr(mixture, source) for source in (first, second)]
        gains.append(np.mean(values[best]) - np.mean(base))
        assert own["si_snri"].mean() == pytest.approx(gains[-1], abs=1e-3)
    assert metrics.loc["sepformer", "mini-noisy", "si_snri"]["value"] == pytest.approx(
        np.mean(gains), abs=1e-3
    )


def test_the_report_has_all_of_it(results: Path) -> None:
    found = {path.name for path in (results / "report").iterdir()}
    sets = ("mini-clean", "mini-noisy")
    pages = {f"separation-listening-{name}.html" for name in sets}
    figures = {f"separation-{name}.svg" for name in sets}
    assert found == {"separation.html", "training-separators.svg", *pages, *figures}
    page = (results / "report/separation.html").read_text()
    for name in ("mixture", *CONFIG["separation"]["systems"]):
        assert f">{name}<" in page
    listening = (results / "report/separation-listening-mini-noisy.html").read_text()
    # Two best and two worst: mixture, two references, two estimates of two systems.
    assert listening.count("<audio") == 4 * (1 + 2 + 2 * 2)


def test_what_comes_before_a_system_is_scored_before_it(run: Path) -> None:
    assert planned(run, CONFIG) == {}
    jobs = planned(run, changed(CONFIG, "separation.systems.sepformer.resample", True))
    # Its own scores, and those of the system that it comes before.
    assert (jobs["separate"], jobs["score_separation"]) == (2, 4)


def test_a_separator_is_not_scored_on_speakers_that_it_was_trained_on(
    run: Path, results: Path, tmp_path: Path
) -> None:
    """Trained in one run, used in another whose corpus is split otherwise."""
    shutil.copytree(results / "separators/sepformer", tmp_path / "mine")
    (tmp_path / "resources").mkdir()
    shutil.copytree(run / "resources/corpora", tmp_path / "resources/corpora")
    config = changed(CONFIG, "corpora.mini-voices.split.test_fraction", 0.8)
    config["models"]["mine"] = {
        "source": "path",
        "architecture": "etaflow-separator",
        "path": "mine",
        "weights": "trained",
    }
    config["separation"] |= {
        "mixtures": ["mini-clean"],
        "systems": {"mine": {"separator": "mine"}},
    }
    del config["separators"], config["mixtures"]["mini-noisy"]
    config["mixtures"]["mini-clean"]["counts"] = {"test": 12}
    output = snakemake(tmp_path, config, ok=False)
    assert "mine was trained on" in output
    assert not (tmp_path / "results/separation/separation/mine/mini-clean.tsv").exists()


def librispeech_of(manifest: pd.DataFrame, run: Path, root: Path) -> dict[str, list[str]]:
    """The recordings in LibriSpeech's layout; of each subset the files."""
    subsets = ("train-clean-100", "dev-clean", "test-clean")
    files: dict[str, list[str]] = {name: [] for name in subsets}
    speakers = sorted(manifest["speaker_id"].unique())
    for number, speaker in enumerate(speakers):
        subset = subsets[0 if number < len(speakers) / 2 else 1 + number % 2]
        own = manifest[manifest["speaker_id"] == speaker]
        for index, path in enumerate(own["path"]):
            name = f"{subset}/{100 + number}/1/{100 + number}-1-{index:04d}"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            waveform, rate = soundfile.read(run / path)
            soundfile.write(root / f"{name}.flac", waveform, rate)
            files[subset].append(f"{name}.flac")
    return files


def published_table(path: Path, files: list[str], speakers: int, noises: list[str]) -> None:
    """Mixtures of utterances of different speakers, in LibriMix's columns."""
    by_speaker: dict[str, list[str]] = {}
    for file in files:
        by_speaker.setdefault(file.split("/")[1], []).append(file)
    own = list(by_speaker.values())
    rows = []
    for number, noise in enumerate(noises * 2):
        chosen = [own[(number + k) % len(own)][number % 4] for k in range(speakers)]
        gains = [value for file in chosen for value in (file, 0.3 + 0.1 * number)]
        rows.append(["_".join(Path(file).stem for file in chosen), *gains, noise, 0.5])
    table = pd.DataFrame(rows, columns=metadata_columns(speakers))
    table.drop_duplicates("mixture_ID").to_csv(path, index=False)


def twin(run: Path, results: Path, folder: Path) -> dict[str, Any]:
    """The preset on mixtures of `mini` in LibriMix's and WHAM!'s layout, with small models."""
    config = load_config("librimix")
    manifest = read_manifest(results / "manifests/mini-voices.tsv")
    manifest = manifest[manifest["speaker_id"].isin(sorted(set(manifest["speaker_id"]))[:16])]
    files = librispeech_of(manifest, run, folder / "LibriSpeech")
    config["corpora"]["librispeech"] |= {"root": str(folder), "shards": 2}
    noises = {"train-clean-100": "tr/n.wav", "dev-clean": "cv/n.wav", "test-clean": "tt/n.wav"}
    for name in noises.values():
        (folder / "noise" / name).parent.mkdir(parents=True)
        noise = np.random.default_rng(0).normal(0, 0.02, (40_000, 2))
        soundfile.write(folder / "noise" / name, noise, 16_000)
    for name, entry in config["mixtures"].items():
        speakers = entry["speakers"]
        entry |= {"noise": {"folder": str(folder / "noise")}, "shards": 2}
        for part, tables in entry["metadata"].items():
            subset = tables[0].partition("_")[2]
            path = folder / f"{name}-{part}.csv"
            more = ["tr/nsp08.wav"] if part == "train" else []
            published_table(path, files[subset], speakers, [noises[subset], *more])
            entry["metadata"][part] = [str(path)]
    for name, model in config["models"].items():
        count = 3 if "3mix" in name else 2
        text = HYPERPARAMETERS.replace("num_spks: 3", f"num_spks: {count}")
        published_folder(folder / name, text)
        (folder / name / "model.json").unlink()
        local = {"source": "path", "path": str(folder / name), "weights": "untrained"}
        config["models"][name] = local | {"architecture": model["architecture"]}
    for entry in config["separators"].values():
        entry |= {"steps": 2, "validate_every": 1, "validation_mixtures": 2, "crop_seconds": 1.0}
        entry |= {"precision": "float32"}
    config["separation"] |= {"bootstrap_rounds": 100, "listening_mixtures": 1}
    return config


def test_the_preset_runs_on_small_copies(run: Path, results: Path, tmp_path: Path) -> None:
    config = twin(run, results, tmp_path)
    snakemake(tmp_path, config)
    folder = tmp_path / "results/librimix"
    table = read_table(folder / "separation/metrics.tsv", ("value",))
    gains = table[table["metric"] == "si_snri"].groupby("mixtures")["system"].agg(list)
    two = ["sepformer-wsj02mix", "sepformer-wham", "sepformer-libri2mix"]
    assert gains["libri2mix"] == gains["libri2mix-noisy"] == [*two, "sepformer-libri2mix-tuned"]
    assert gains["libri3mix"] == ["sepformer-wsj03mix", "sepformer-libri3mix"]
    drawn = read_metadata(folder / "mixtures/libri2mix-noisy/train/metadata.csv")
    assert set(drawn["noise_path"]) == {"tr/n.wav", "tr/nsp08.wav"}
    assert (drawn["speaker_1_ID"] != drawn["speaker_2_ID"]).all()
    page = (folder / "report/separation.html").read_text()
    assert "Libri2Mix" in page
    assert planned(tmp_path, config) == {}


def long_mixture(run: Path, results: Path, seconds: int) -> np.ndarray:
    """Two test speakers who say all that they have said, over and over, with pauses; at 8 kHz."""
    manifest = read_manifest(results / "manifests/mini-voices.tsv").query("split == 'test'")
    generator, size = np.random.default_rng(0), seconds * 8_000
    sources = []
    for speaker in sorted(set(manifest["speaker_id"]))[3:18:14]:
        spoken = [
            resample_poly(soundfile.read(run / path)[0], 1, 2)
            for path in manifest.loc[manifest["speaker_id"] == speaker, "path"]
        ]
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < size:
            parts.append(spoken[generator.integers(len(spoken))])
            parts.append(np.zeros(generator.integers(5_000)))
        sources.append(np.concatenate(parts)[:size])
    return (sources[0] + 0.7 * sources[1]).astype(np.float32)


def test_chunks_equal_the_whole(run: Path, results: Path) -> None:
    _, network = load_separator(results / "separators/sepformer")
    mixture = long_mixture(run, results, 32)
    whole = separate(network, mixture, max_seconds=100)
    chunked = separate(network, mixture)
    values, order = pit_si_snr(chunked, whole)
    assert order.tolist() == [0, 1]
    assert values.min() > 30


def test_ten_minutes_are_separated_in_two_gigabytes(
    run: Path, results: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "long.wav", long_mixture(run, results, 600), 8_000)
    model, out = results / "separators/sepformer", tmp_path / "out"
    arguments = [tmp_path / "long.wav", "-o", out, "--model", model]
    command = [sys.executable, "-c", MEASURED, "separate", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 2e6  # kB
    for name in ("source1.wav", "source2.wav"):
        assert soundfile.info(out / name).frames == 600 * 8_000

"""scripts/score_separation.py: a row a source, figures with intervals, and what is refused."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from etaflow.audio import file_checksum, read_audio, write_lossless
from etaflow.manifest import read_table, write_table
from etaflow.metrics import mixture_sdr, mixture_si_snr, pit_si_snr, sdr
from etaflow.separation.figures import separation_metrics
from etaflow.separation.score_table import COLUMNS, RATIOS
from etaflow.separation.scores import score_mixtures
from etaflow.separation.tables import read_mixtures, read_separated
from tests.mixture_tools import Signals, draw_sources, mixture_table, separated_table
from tests.workflow_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import score_separation

COUNT = 6
SOURCES = draw_sources([1_500 + 10 * index for index in range(COUNT)])
CONFIG = {"bootstrap_rounds": 50, "seed": 3}


def spoilt(leak: float) -> list[Signals]:
    """Estimates with so much of the mixture, the other way round in every second mixture."""
    noise = draw_sources([own.shape[1] for own in SOURCES], seed=1)
    return [
        (own + leak * own.sum(axis=0) + 0.1 * extra)[:: -1 if index % 2 else 1]
        for index, (own, extra) in enumerate(zip(SOURCES, noise, strict=True))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mixtures = mixture_table(tmp_path / "mixtures", SOURCES)
    write_table(mixtures, tmp_path / "mixtures.tsv")
    for name, leak in (("good", 0.1), ("poor", 0.4)):
        table = separated_table(tmp_path / name, mixtures, spoilt(leak), weights="published")
        write_table(table, tmp_path / f"{name}.tsv")
    return tmp_path


def run(folder: Path, system: str, *more: str) -> Result:
    options = ["--system", system, "--mixtures-name", "small", "--config", json.dumps(CONFIG)]
    options += ["--mixtures", str(folder / "mixtures.tsv")]
    for what in ("output", "metrics", "excluded"):
        options += [f"--{what}", str(folder / f"{system}-{what}.tsv")]
    if system != "mixture":
        options += ["--separated", str(folder / f"{system}.tsv")]
    return CliRunner().invoke(score_separation.app, [*options, *more])


def refusal(folder: Path, system: str, *more: str) -> str:
    result = run(folder, system, *more)
    assert result.exit_code == 1, result.output
    assert not list(folder.glob(f"{system}-*.tsv"))
    return str(result.exception)


def scores(folder: Path, system: str) -> pd.DataFrame:
    return read_table(folder / f"{system}-output.tsv", ("source", "estimate", *RATIOS))


def figures(folder: Path, system: str) -> pd.DataFrame:
    table = read_table(folder / f"{system}-metrics.tsv", ("value", "low", "high", "n"))
    return table.set_index("metric")


def edit(path: Path, row: int, part: str, signal: np.ndarray) -> None:
    """Another signal for a file of a table."""
    table = read_table(path)
    file = table.loc[row, f"{part}_path"]
    write_lossless(file, signal.astype(np.float32), 8_000)
    table.loc[row, f"{part}_checksum"] = file_checksum(file)
    write_table(table, path)


def test_a_row_a_source_with_the_estimate_it_got(folder: Path) -> None:
    assert run(folder, "good").exit_code == 0
    table = scores(folder, "good")
    assert list(table) == COLUMNS
    assert list(table["mixture_ID"]) == [f"m{index}" for index in range(COUNT) for _ in (1, 2)]
    assert list(table["source"]) == [1, 2] * COUNT
    assert list(table["estimate"]) == [1, 2, 2, 1] * (COUNT // 2)
    assert list(table["speaker"][:4]) == ["s1", "s2", "s2", "s3"]
    for index, (own, found) in enumerate(zip(SOURCES, spoilt(0.1), strict=True)):
        rows, mixture = table.iloc[2 * index : 2 * index + 2], own.sum(axis=0)
        expected = {
            "si_snr": pit_si_snr(found, own)[0],
            "mixture_si_snr": mixture_si_snr(mixture, own),
            "sdr": sdr(found, own)[0],
            "mixture_sdr": mixture_sdr(mixture, own),
        }
        expected["si_snri"] = expected["si_snr"] - expected["mixture_si_snr"]
        expected["sdri"] = expected["sdr"] - expected["mixture_sdr"]
        for name, values in expected.items():
            assert rows[name].to_numpy() == pytest.approx(values, abs=1e-5), name
    assert (table["si_snri"] > 10).all()
    assert (folder / "good-excluded.tsv").read_text() == "mixture_ID\treason\n"


def test_figures_are_means_over_mixtures(folder: Path) -> None:
    run(folder, "good")
    table, found = scores(folder, "good"), figures(folder, "good")
    assert list(found.index) == ["si_snr", "si_snri", "sdr", "sdri"]
    for metric, row in found.iterrows():
        assert row["value"] == pytest.approx(table[metric].mean(), abs=1e-4)
        assert row["low"] < row["value"] < row["high"]
    assert set(found["n"]) == {COUNT}
    assert set(found["weights"]) == {"published"}
    assert set(found["system"] + found["mixtures"]) == {"goodsmall"}


def test_the_mixture_is_a_system_without_improvement(folder: Path) -> None:
    assert run(folder, "mixture").exit_code == 0
    run(folder, "good")
    table, found = scores(folder, "mixture"), figures(folder, "mixture")
    assert table["estimate"].isna().all()
    assert (table[["si_snri", "sdri"]] == 0).all(axis=None)
    other = scores(folder, "good")
    for ratio in ("si_snr", "sdr"):
        pd.testing.assert_series_equal(table[ratio], table[f"mixture_{ratio}"], check_names=False)
        pd.testing.assert_series_equal(table[f"mixture_{ratio}"], other[f"mixture_{ratio}"])
    assert list(found.index) == ["si_snr", "sdr"]
    assert set(found["weights"]) == {"trained"}


def test_threads_change_nothing(folder: Path) -> None:
    table = read_mixtures([folder / "mixtures.tsv"])
    separated = read_separated(folder / "good.tsv", table)
    one, other = (score_mixtures(table, separated, threads=threads)[0] for threads in (1, 3))
    pd.testing.assert_frame_equal(one, other)


def test_the_gain_on_the_system_before_is_paired(folder: Path) -> None:
    run(folder, "poor")
    assert run(folder, "good", "--before", str(folder / "poor-output.tsv")).exit_code == 0
    poor, good, gain = (
        figures(folder, "poor"),
        figures(folder, "good"),
        figures(folder, "good").loc["si_snri_gain"],
    )
    expected = good.loc["si_snri", "value"] - poor.loc["si_snri", "value"]
    assert gain["value"] == pytest.approx(expected, abs=2e-4)
    assert gain["n"] == COUNT
    run(folder, "good", "--before", str(folder / "good-output.tsv"))
    assert list(figures(folder, "good").loc["si_snri_gain", ["value", "low", "high"]]) == [0, 0, 0]


@pytest.mark.parametrize("change", ["mixture", "speaker", "level", "fewer", "column"])
def test_the_system_before_has_to_be_scored_on_the_same_mixtures(folder: Path, change: str) -> None:
    run(folder, "poor")
    path = folder / "poor-output.tsv"
    table = read_table(path)
    if change == "mixture":
        table.loc[:1, "mixture_ID"] = "m00"
    elif change == "speaker":
        table.loc[0, "speaker"] = "s4"
    elif change == "level":
        table.loc[5, "mixture_si_snr"] = "0.5"
    elif change == "fewer":
        table = table.iloc[:-2]
    else:
        table = table.drop(columns="sdri")
    write_table(table, path)
    reason = (
        "missing column(s) sdri" if change == "column" else "scores of other mixtures than these"
    )
    assert reason in refusal(folder, "good", "--before", str(path))
    assert run(folder, "mixture", "--before", str(path)).exit_code == 2


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_mixtures_with_a_silent_reference_are_left_out_for_every_system(
    folder: Path, level: float
) -> None:
    edit(folder / "mixtures.tsv", 2, "source_2", np.full(SOURCES[2].shape[1], level))
    # Of what is left out the estimates do not matter.
    edit(folder / "good.tsv", 2, "estimate_1", np.zeros(SOURCES[2].shape[1]))
    for system in ("mixture", "good"):
        assert run(folder, system).exit_code == 0
        left = read_table(folder / f"{system}-excluded.tsv").to_numpy().tolist()
        assert left == [["m2", "source 2 is silent"]]
        assert "m2" not in set(scores(folder, system)["mixture_ID"])
        assert set(figures(folder, system)["n"]) == {COUNT - 1}


def test_silent_references_throughout_leave_nothing_to_score(folder: Path) -> None:
    for index, own in enumerate(SOURCES):
        edit(folder / "mixtures.tsv", index, "source_1", np.zeros(own.shape[1]))
    assert "all 6 mixtures have a silent reference" in refusal(folder, "mixture")


def test_a_silent_estimate_is_the_systems_failure(folder: Path) -> None:
    edit(folder / "good.tsv", 3, "estimate_2", np.zeros(SOURCES[3].shape[1]))
    message = refusal(folder, "good")
    assert re.match(r"m3: estimate 2, .*m3.wav, is silent .* train the separator further", message)


def test_estimates_that_do_not_fit(folder: Path) -> None:
    path = folder / "good.tsv"
    table = read_table(path)
    mixtures = read_mixtures([folder / "mixtures.tsv"])
    three = separated_table(folder / "three", mixtures, draw_sources([1_500] * COUNT, 3))
    # Such as the same mixtures without noise, which have the same names and lengths.
    changed = [*table["mixture_checksum"][:3], "0" * 16, *table["mixture_checksum"][4:]]
    other = table.assign(length=[*table["length"][:4], "1234", *table["length"][5:]])
    for wrong, reason in (
        (three, "columns .*estimate_3_path.*; estimates of 2 sources have"),
        (table.drop(columns=["estimate_2_path"]), "estimates of 2 sources have"),
        (table.iloc[:-1], "estimates of other mixtures than those listed: m5"),
        (pd.concat([table, table.iloc[:1]]), "a mixture stands twice"),
        (other, "m4 has a length of 1234, its mixture of 1540"),
        (table.assign(sample_rate="16000"), "m0 has a sample_rate of 16000, its mixture of 8000"),
        (table.assign(mixture_checksum=changed), "m3 has a mixture_checksum of 0{16}, its mixt"),
    ):
        write_table(wrong, path)
        assert re.search(reason, refusal(folder, "good"))


def test_files_that_are_not_what_the_tables_say(folder: Path) -> None:
    edit(folder / "good.tsv", 1, "estimate_1", np.ones(77))
    assert re.search(r"m1.wav: has 77 samples; its table says 1510", refusal(folder, "good"))
    run(folder, "poor")
    path = read_table(folder / "poor.tsv").loc[4, "estimate_2_path"]
    whole = read_audio(path, None)
    for out in folder.glob("poor-*"):
        out.unlink()
    write_lossless(path, whole[::-1].copy(), 8_000)
    assert "m4.wav: changed since its table was written" in refusal(folder, "poor")
    Path(path).unlink()
    assert "m4.wav: unreadable" in refusal(folder, "poor")
    content = bytearray((folder / "mixtures/mixture/m0.wav").read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    (folder / "mixtures/mixture/m0.wav").write_bytes(content)
    table = read_table(folder / "mixtures.tsv")
    table.loc[0, "mixture_checksum"] = file_checksum(folder / "mixtures/mixture/m0.wav")
    write_table(table, folder / "mixtures.tsv")
    assert re.search(r"m0.wav: .*NaN", refusal(folder, "mixture"))


def test_speakers_of_the_training_are_not_tested_on(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({"speakers": ["s3", "s9", "s1"]}))
    message = refusal(folder, "good", "--separator", str(config))
    assert "good was trained on 2 of the speakers of these mixtures: s1, s3;" in message
    # Weights that were chosen by their scores on them are no fairer.
    config.write_text(json.dumps({"speakers": ["x"], "validation_speakers": ["s2", "y"]}))
    message = refusal(folder, "good", "--separator", str(config))
    assert "good was validated on 1 of the speakers of these mixtures: s2;" in message
    for facts in ({}, {"training": {}}, {"speakers": ["x"], "validation_speakers": ["y"]}):
        config.write_text(json.dumps(facts))
        assert run(folder, "good", "--separator", str(config)).exit_code == 0


def test_intervals_are_those_of_drawing_speakers_one_by_one() -> None:
    generator = np.random.default_rng(0)
    mixtures, speakers = 40, [f"s{index}" for index in range(7)]
    drawn = [generator.choice(speakers, 2, replace=False) for _ in range(mixtures)]
    rows = [
        (f"m{index:02d}", n + 1, str(pair[n]), n + 1, *generator.normal(index / 4, 1, 6))
        for index, pair in enumerate(drawn)
        for n in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    before = table.assign(si_snri=generator.normal(0, 1, len(table)))
    rounds, seed = 60, 4
    names = ["si_snr", "si_snri", "sdr", "sdri", "si_snri_gain"]
    values = [table[name].to_numpy().reshape(-1, 2).mean(axis=1) for name in names[:-1]]
    values.append(values[1] - before["si_snri"].to_numpy().reshape(-1, 2).mean(axis=1))
    again = np.random.default_rng(seed)
    samples = []
    for _ in range(rounds):
        sample = [speakers[index] for index in again.integers(0, len(speakers), len(speakers))]
        times = [sample.count(one) * sample.count(other) for one, other in drawn]
        samples.append([np.average(own, weights=times) for own in values])
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    found = separation_metrics(("x", "y"), table, "trained", before, rounds, seed)
    assert list(found["metric"]) == names
    assert found["value"].to_numpy() == pytest.approx([own.mean() for own in values], abs=1e-4)
    assert found["low"].to_numpy() == pytest.approx(low, abs=1e-4)
    assert found["high"].to_numpy() == pytest.approx(high, abs=1e-4)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        separation_metrics(("x", "y"), shuffled, "trained", before, rounds, seed), found
    )


def test_samples_without_a_mixture_are_left_out() -> None:
    rows = [("m", n, f"s{n}", n, *[5.0] * 6) for n in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    found = separation_metrics(("x", "y"), table, "trained", rounds=100)
    assert found[["value", "low", "high"]].to_numpy().tolist() == [[5.0] * 3] * 4

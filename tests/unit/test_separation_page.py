import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from etaflow.audio import AudioError, file_checksum, write_lossless
from etaflow.evaluation.separation import (
    BASELINE,
    PUBLISHED,
    excluded_words,
    mixtures_words,
    system_words,
)
from etaflow.manifest import write_table
from etaflow.metrics.signals import si_snr
from etaflow.pages.separation import separation_page
from etaflow.separation.listening import at_level_of, best_and_worst, within_range
from scripts import render_separation, render_separation_listening
from tests.separation_scores_tools import scores_table

COLUMNS = ["system", "mixtures", "metric", "value", "low", "high", "n", "weights"]
MINI = {
    "corpus": "mini",
    "seed": 3,
    "part": "test",
    "speakers": 2,
    "sample_rate": 8_000,
    "mode": "min",
    "kind": "clean",
}
TUNED = {
    "separator": "small",
    "resample": True,
    "before": "base",
    "origin": "libri",
    "mixtures_trained_on": ["mini"],
}
BASE = {
    "separator": "libri",
    "resample": False,
    "before": None,
    "origin": "libri",
    "mixtures_trained_on": [],
}


class Tables(HTMLParser):
    """The cells of every table of a page, as text: tables, rows, cells."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.open = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True
        elif tag in ("small", "audio") and self.open:
            self.tables[-1][-1][-1] += "|" if tag == "small" else "|(player)"

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data


def metrics(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


ROWS = (
    ("<tuned>", "mini", "si_snri_gain", 2.25, 1.5, 3.0, 40, "untrained"),
    ("<tuned>", "mini", "si_snri", 7.256, 6.0, 8.5, 40, "untrained"),
    ("base", "mini", "si_snri", 5.0, 4.0, 6.0, 40, "published"),
    ("base", "mini", "si_snr", 5.25, 4.0, 6.5, 40, "published"),
    (BASELINE, "mini", "si_snr", 0.25, -0.5, 1.0, 40, "trained"),
    ("base", "noisy", "si_snri", 3.0, 2.0, 4.0, 9, "published"),
)
SETS = {"noisy": "with noise", "mini": "drawn", "other": "of no system"}
BEFORE = {"base": None, "<tuned>": "base"}


def page(rows=ROWS, sets=SETS, before=BEFORE):
    words = {BASELINE: "nothing", "<tuned>": "how & why"}
    return separation_page("Title", metrics(*rows), sets, words, before, PUBLISHED)


def test_each_set_has_a_table_of_systems_in_order_beside_separating_nothing():
    html = page()
    noisy, mini, published = Tables(html).tables
    assert html.index("<h2>noisy</h2>") < html.index("with noise.") < html.index("<h2>mini</h2>")
    assert "of no system" not in html
    head = ["system", "SI-SNR, dB", "SI-SNRi, dB", "SI-SNRi, after minus before, dB"]
    assert mini == [
        head,
        ["mixture", "0.25|-0.50 to 1.00|n = 40", "", ""],
        ["base|published weights", "5.25|4.00 to 6.50|n = 40", "5.00|4.00 to 6.00|n = 40", ""],
        [
            "<tuned> (before: base)|untrained weights",
            "",
            "7.26|6.00 to 8.50|n = 40, untrained",
            "2.25|1.50 to 3.00|n = 40, untrained",
        ],
    ]
    assert noisy[1:] == [["base|published weights", "", "3.00|2.00 to 4.00|n = 9", ""]]
    assert published[0][:4] == ["system", "test set", "SI-SNRi, dB", "SDRi, dB"]
    assert "<li><b>&lt;tuned&gt;</b>: how &amp; why</li>" in html
    assert "Untrained weights in the path" in html


def test_notes_say_what_is_a_difference_and_of_what():
    html = page()
    notes = dict(re.findall(r"<li><b>(.*?)</b>: (.*?)</li>", html))
    assert notes["SI-SNRi, dB"].startswith("SI-SNR(estimate) - SI-SNR(mixture)")
    assert (
        "SI-SNRi of this system (after) minus SI-SNRi of the system before it"
        in (notes["SI-SNRi, after minus before, dB"])
    )
    assert "not how much cleaner than the mixture" in notes["SI-SNR, dB"]
    assert "improve" not in notes["SI-SNR, dB"]
    assert "SDR, dB" not in notes  # no system has it here


def test_figures_of_what_is_not_known_are_refused():
    with pytest.raises(ValueError, match="figures of the set of mixtures noisy, of which"):
        page(sets={"mini": "drawn"})
    with pytest.raises(ValueError, match="figures of the system <tuned>, of which"):
        page(before={"base": None})


def test_sets_say_what_they_are():
    words = mixtures_words(MINI)
    assert words == (
        "mixtures of 2 speakers, drawn from mini (seed 3), part test, at 8 kHz, ending with the "
        "shortest source (min), without noise"
    )
    listed = {key: value for key, value in MINI.items() if key not in ("corpus", "seed")}
    listed |= {"metadata": "libri2mix_test.csv", "mode": "max", "kind": "both", "noise": "WHAM!"}
    words = mixtures_words(listed | {"sample_rate": 16_000})
    assert "as libri2mix_test.csv has them, part test, at 16 kHz, as long as the longest" in words
    assert "with noise (WHAM!): the references are clean" in words
    assert mixtures_words(listed | {"kind": "single"}).startswith("mixtures of 1 speaker, as")


def test_what_is_left_out_is_named_with_its_reason():
    table = pd.DataFrame(
        [("b", "silent"), ("a", "silent"), ("c", "too short")], columns=["mixture_ID", "reason"]
    )
    assert excluded_words(table) == "3 left out: a, b (silent); c (too short)"
    assert excluded_words(table.iloc[:0]) == ""


def test_systems_say_how_they_separate():
    assert "separating nothing" in system_words(BASELINE, {})
    assert system_words("base", BASE) == "separator libri, trained elsewhere"
    assert system_words("tuned", TUNED) == (
        "separator small, trained here on mini from libri, which was trained elsewhere; mixtures "
        "of another rate are resampled to the separator's, and its estimates back; before it: base"
    )
    new = {**TUNED, "resample": False, "before": None, "origin": None}
    assert system_words("new", new) == "separator small, trained here on mini"
    assert system_words("new", new | {"mixtures_trained_on": []}) == "separator small, not trained"


def test_published_scores_name_their_data_and_source():
    found = {}
    for each in PUBLISHED:
        assert re.match(r"arXiv:\d{4}\.\d{5}|github\.com/|huggingface\.co/", each.source)
        assert re.match(r"(8|16) kHz, min, (clean|noise)", each.data)
        assert set(each.figures) <= {"si_snri", "sdri"}
        assert all(5 < value < 25 for value in each.figures.values())
        found.setdefault((each.system, each.mixtures), []).append(each.figures["si_snri"])
    assert found["SepFormer", "WSJ0-2mix"] == [22.3, 20.4, 22.4]
    assert found["SepFormer", "WSJ0-3mix"] == [19.5, 17.6, 19.8]
    assert found["SepFormer", "WHAMR!"] == [11.4, 13.7, 14.0]
    assert found["SepFormer, published weights", "Libri2Mix"] == [20.6]
    assert found["SepFormer, published weights", "Libri3Mix"] == [19.0]
    assert found["Conv-TasNet", "WSJ0-2mix"] == [15.3]
    shown = Tables(page()).tables[-1][1:]
    assert [row[:4] for row in shown[:2]] == [
        ["SepFormer", "WSJ0-2mix", "22.3", ""],
        ["SepFormer", "WSJ0-2mix", "20.4", ""],
    ]
    assert shown[1][5] == "no augmentation"


def run(module, *arguments):
    return CliRunner().invoke(module.app, [str(argument) for argument in arguments])


def test_the_program_joins_words_tables_and_what_was_left_out(tmp_path):
    write_table(metrics(*(row for row in ROWS if row[1] == "mini")), tmp_path / "metrics.tsv")
    (tmp_path / "left.tsv").write_text("mixture_ID\treason\nx_y\tsilent\n")
    arguments = [
        tmp_path / "metrics.tsv",
        "--mixtures",
        json.dumps({"mini": MINI}),
        "--systems",
        json.dumps({"base": BASE, "<tuned>": TUNED}),
        "--title",
        "Separation",
        "--output",
        tmp_path / "page.html",
    ]
    done = run(render_separation, *arguments, "--excluded", f"mini={tmp_path / 'left.tsv'}")
    assert done.exit_code == 0, done.output
    html = (tmp_path / "page.html").read_text()
    assert "without noise; 1 left out: x_y (silent).</p>" in html
    assert [row[0] for row in Tables(html).tables[0]] == [
        "system",
        "mixture",
        "base|published weights",
        "<tuned> (before: base)|untrained weights",
    ]
    assert "<li><b>mixture</b>: the mixture itself" in html
    done = run(render_separation, *arguments, "--excluded", "nothing=x")
    assert done.exit_code != 0
    assert "no set of mixtures is named 'nothing'" in done.output


def test_best_and_worst_are_by_mean_and_each_mixture_stands_once():
    means = pd.Series({"a": 1.0, "b": 5.0, "c": -2.0, "d": 3.0, "e": 5.0})
    assert best_and_worst(means, 2) == [
        ("best 1", "b"),
        ("best 2", "e"),
        ("worst 2", "a"),
        ("worst 1", "c"),
    ]
    everything = best_and_worst(means, 9)
    assert [name for _, name in everything] == ["b", "e", "d", "a", "c"]
    assert [title for title, _ in everything] == [
        "best 1",
        "best 2",
        "best 3",
        "worst 2",
        "worst 1",
    ]


def test_the_level_of_an_estimate_is_that_of_its_reference_and_its_score_the_same():
    rng = np.random.default_rng(0)
    reference = (0.1 * rng.normal(size=800)).astype(np.float32)
    estimate = (30 * (reference + 0.02 * rng.normal(size=800))).astype(np.float32)
    scaled = at_level_of(estimate, reference)
    assert np.square(scaled).sum() == pytest.approx(np.square(reference).sum(), rel=1e-5)
    assert si_snr(scaled, reference) == pytest.approx(si_snr(estimate, reference), abs=1e-4)
    with pytest.raises(ValueError, match="the estimate is silent"):
        at_level_of(np.zeros(800, np.float32), reference)


def test_a_row_is_turned_down_as_a_whole():
    quiet, loud = np.full(4, 0.5, np.float32), np.full(4, -2.0, np.float32)
    np.testing.assert_allclose(within_range([quiet, loud]), [quiet / 2, loud / 2])
    np.testing.assert_array_equal(within_range([quiet, quiet / 2]), [quiet, quiet / 2])


RATE, LENGTH = 8_000, 1_600


@pytest.fixture
def run_folder(tmp_path):
    """Four mixtures of two tones; the estimates of two systems, one of which swaps the sources."""
    times = np.arange(LENGTH) / RATE
    rows, separated = [], {"one": [], "two": []}
    for number in range(4):
        name = f"m{number}"
        sources = [
            (0.3 * np.sin(2 * np.pi * pitch * (1 + number) * times)).astype(np.float32)
            for pitch in (100, 150)
        ]
        waveforms = {"mixture": sum(sources), "source_1": sources[0], "source_2": sources[1]}
        row = {"mixture_ID": name, "length": LENGTH, "sample_rate": RATE}
        row |= {"speaker_1": "ann", "speaker_2": "bob"}
        for part, waveform in waveforms.items():
            row |= written(tmp_path / "mixtures" / part / f"{name}.wav", part, waveform)
        rows.append(row)
        for system, gain in (("one", 4.0), ("two", 0.01)):
            order = sources if system == "one" else sources[::-1]
            estimates = {"mixture_ID": name, "weights": "trained"}
            for index, source in enumerate(order, 1):
                path = tmp_path / system / "mini" / f"{name}-{index}.wav"
                estimates |= written(path, f"estimate_{index}", gain * source)
            separated[system].append(estimates)
    write_table(pd.DataFrame(rows).iloc[:3], tmp_path / "0.tsv")
    write_table(pd.DataFrame(rows).iloc[3:], tmp_path / "1.tsv")
    improvements = np.array([[1.0, 2.0], [9.0, 11.0], [-1.0, -2.0], [4.0, 5.0]])
    for system, table in separated.items():
        write_table(pd.DataFrame(table), tmp_path / system / "mini" / "separated.tsv")
        scores = scores_table(improvements, np.zeros((4, 2)), swapped=system == "two")
        left = scores["mixture_ID"] != "m2"  # of two, as of a mixture that it left out
        write_table(scores if system == "one" else scores[left], tmp_path / system / "mini.tsv")
    table = metrics(
        ("one", "mini", "si_snri", 1.0, 0.0, 2.0, 4, "trained"),
        ("two", "mini", "si_snri", 1.0, 0.0, 2.0, 4, "untrained"),
    )
    write_table(table, tmp_path / "metrics.tsv")
    return tmp_path


def written(path, part, waveform):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lossless(path, waveform, RATE)
    return {f"{part}_path": str(path), f"{part}_checksum": file_checksum(path)}


def arguments(folder, **changes):
    options = {"by": "one", "mixtures-shown": 1, "title": "Listen", "output": folder / "page.html"}
    options |= {"metrics": folder / "metrics.tsv"} | changes
    given = [folder / "one" / "mini.tsv", folder / "two" / "mini.tsv"]
    given += [f"--separated={folder / name / 'mini' / 'separated.tsv'}" for name in ("one", "two")]
    given += [f"--mixtures={folder / shard}" for shard in ("0.tsv", "1.tsv")]
    return given + [f"--{name}={value}" for name, value in options.items()]


def test_the_listening_page_has_the_best_and_the_worst_with_estimates_in_order(run_folder):
    done = run(render_separation_listening, *arguments(run_folder))
    assert done.exit_code == 0, done.output
    html = (run_folder / "page.html").read_text()
    (table,) = Tables(html).tables
    assert table == [
        ["mixture", "mixture", "references", "one", "two (untrained)"],
        [
            "best 1|m1, 0.2 s",
            "|(player)",
            "|speaker ann|(player)|speaker bob|(player)",
            "|mean SI-SNRi 10.0 dB|SI-SNRi 9.0 dB|(player)|SI-SNRi 11.0 dB|(player)",
            "|mean SI-SNRi 10.0 dB|SI-SNRi 9.0 dB|(player)|SI-SNRi 11.0 dB|(player)",
        ],
        [
            "worst 1|m2, 0.2 s",
            "|(player)",
            "|speaker ann|(player)|speaker bob|(player)",
            "|mean SI-SNRi -1.5 dB|SI-SNRi -1.0 dB|(player)|SI-SNRi -2.0 dB|(player)",
            "",
        ],
    ]
    assert "SI-SNRi of one: 2 of 4" in html
    assert "scaled to the level of its reference" in html
    played = [
        soundfile.read(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"base64,([^\"]+)", html)
    ]
    assert {rate for _, rate in played} == {RATE}
    mixture, first, second, *estimates = [sound for sound, _ in played[:7]]
    np.testing.assert_allclose(mixture, first + second, atol=1e-4)
    # Swapped or not, loud or quiet: each is its reference again.
    for estimate, reference in zip(estimates, [first, second, first, second], strict=True):
        np.testing.assert_allclose(estimate, reference, atol=1e-4)


def test_a_listening_page_of_changed_audio_or_other_systems_is_refused(run_folder):
    done = run(render_separation_listening, *arguments(run_folder, by="three"))
    assert done.exit_code != 0
    assert "the best of three" in re.sub(r"[\s│]+", " ", done.output)
    changed = run_folder / "two" / "mini" / "m1-2.wav"
    write_lossless(changed, np.zeros(LENGTH, np.float32) + 0.1, RATE)
    done = run(render_separation_listening, *arguments(run_folder))
    assert isinstance(done.exception, AudioError)
    assert "m1-2.wav" in str(done.exception)
    assert "changed since it was written" in str(done.exception)
    assert not (run_folder / "page.html").exists()

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from etaflow.figures.base import save_figure
from etaflow.figures.separation import POINTS, plot_separation
from etaflow.figures.training import plot_training
from etaflow.manifest import write_table
from etaflow.separation.score_table import mixture_means, read_scores
from scripts import plot_separation as script
from scripts import plot_training as training_script
from tests.separation_scores_tools import scores_table

SVG = "{http://www.w3.org/2000/svg}"
COLUMNS = ["system", "mixtures", "metric", "value", "low", "high", "n", "weights"]


def drawn(count, sources=2, seed=0, mean=10.0):
    rng = np.random.default_rng(seed)
    return scores_table(rng.normal(mean, 2, (count, sources)), rng.normal(0, 3, (count, sources)))


def points(axes):
    """The points of a panel: its line without a stroke."""
    (line,) = [each for each in axes.get_lines() if each.get_linestyle() == "None"]
    return np.column_stack([line.get_xdata(), line.get_ydata()])


def test_a_system_has_a_row_and_a_panel_in_order_with_its_mean_and_interval():
    tables = {"a": drawn(40), "b$^$ (untrained)": drawn(40, seed=1, mean=0.0)}
    means = {"a": (9.96, 9.4, 10.54), "b$^$ (untrained)": (-0.04, -0.6, 0.5)}
    figure = plot_separation(tables, means, untrained=True)
    above, first, second, *others = figure.axes
    assert [tick.get_text() for tick in above.get_yticklabels()] == ["a", r"b\$^\$ (untrained)"]
    bottom, top = above.get_ylim()
    assert bottom > top  # the first stands at the top
    texts = [text.get_text() for text in above.texts]
    assert texts == [
        "10.0 [9.4, 10.5] dB, n = 40",
        "-0.0 [-0.6, 0.5] dB, n = 40",
        "separating nothing",
    ]
    low_a, mean_a, low_b, mean_b, zero = above.get_lines()
    assert low_a.get_xydata().tolist() == [[9.4, 0], [10.54, 0]]
    assert mean_a.get_xydata().tolist() == [[9.96, 0]]
    assert low_b.get_xydata().tolist() == [[-0.6, 1], [0.5, 1]]
    assert mean_b.get_xydata().tolist() == [[-0.04, 1]]
    assert list(zero.get_xdata()) == [0, 0]
    assert [first.get_title(), second.get_title()] == ["a", r"b\$^\$ (untrained)"]
    assert not [axes for axes in others if axes.get_visible()]
    assert "untrained weights" in figure.get_supxlabel()
    assert "a point a source, 80 of 80" in figure.get_supxlabel()


def test_histograms_are_of_means_over_sources_and_hold_every_mixture():
    # Of m0 the sources gain 0 and 8, of the others 6 and 6 or -2 and -2.
    improvements = np.array([[0.0, 8.0], [6.0, 6.0], [6.0, 6.0], [-2.0, -2.0]])
    table = scores_table(improvements, np.zeros((4, 2)))
    assert mixture_means(table).tolist() == [4, 6, 6, -2]
    figure = plot_separation({"a": table}, {"a": (3.5, 0, 6)})
    (steps,) = figure.axes[0].patches
    values, edges, baseline = steps.get_data()
    heights = (baseline - values) / 0.75
    assert edges[0] <= -2
    assert edges[-1] >= 6
    np.testing.assert_allclose(np.sort(heights)[-3:], [0.5, 0.5, 1])
    assert heights.sum() == pytest.approx(2)  # four mixtures, the highest bin has two
    (highest,) = np.flatnonzero(heights == heights.max())
    assert edges[highest] <= 6 <= edges[highest + 1]


def test_a_point_is_a_source_before_and_after():
    table = drawn(30)
    figure = plot_separation({"a": table}, {"a": (10, 9, 11)})
    panel = figure.axes[1]
    found = points(panel)
    assert len(found) == 60
    before, after = table["mixture_si_snr"], table["si_snr"]
    inside = before.between(*panel.get_xlim()) & after.between(*panel.get_ylim())
    np.testing.assert_array_equal(found[inside], np.column_stack([before, after])[inside])
    diagonal = panel.get_lines()[0].get_xydata()
    assert (diagonal[:, 0] == diagonal[:, 1]).all()
    assert figure.axes[0].get_xlabel().startswith("SI-SNRi of a mixture")


def test_what_lies_far_off_stands_on_the_edge():
    table = drawn(1_000)
    table.loc[5, ["si_snr", "si_snri"]] = -300.0
    figure = plot_separation({"a": table}, {"a": (10, 9, 11)})
    low = figure.axes[1].get_ylim()[0]
    assert low > -30
    assert (points(figure.axes[1])[:, 1] >= low).all()
    values, edges, baseline = figure.axes[0].patches[0].get_data()
    counts = (baseline - values) / (baseline - values).max()
    assert edges[0] > -30
    assert counts[0] > 0


def test_thousands_of_mixtures_make_a_light_file_of_the_same_bytes(tmp_path):
    tables = {name: drawn(3_000, 3, seed) for seed, name in enumerate("abcdef")}
    for name in ("x", "y"):
        means = dict.fromkeys(tables, (10.0, 9.9, 10.1))
        figure = plot_separation(tables, means)
        assert all(len(points(axes)) == POINTS for axes in figure.axes[1:7])
        assert not figure.axes[7].get_visible()
        assert "800 of 9000" in figure.get_supxlabel()
        save_figure(figure, tmp_path / f"{name}.svg")
    written = (tmp_path / "x.svg").read_bytes()
    assert written == (tmp_path / "y.svg").read_bytes()
    assert len(written) < 1_000_000
    uses = ET.fromstring(written).iter(f"{SVG}use")
    assert sum(1 for _ in uses) >= 6 * POINTS


def metrics(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def run(module, *arguments):
    return CliRunner().invoke(module.app, [str(argument) for argument in arguments])


@pytest.fixture
def run_folder(tmp_path):
    for seed, system in enumerate(("one", "two")):
        write_table(drawn(12, seed=seed), tmp_path / system / "mini.tsv")
    table = metrics(
        ("one", "mini", "si_snr", 9.0, 8.0, 10.0, 12, "trained"),
        ("one", "mini", "si_snri", 10.0, 9.0, 11.0, 12, "trained"),
        ("two", "mini", "si_snri", 10.5, 9.5, 11.5, 12, "untrained"),
        ("two", "other", "si_snri", 1.0, 0.0, 2.0, 12, "untrained"),
    )
    write_table(table, tmp_path / "metrics.tsv")
    return tmp_path


def test_the_program_takes_systems_and_labels_from_the_tables(run_folder):
    output = run_folder / "figure.svg"
    files = [run_folder / name / "mini.tsv" for name in ("two", "one")]
    options = ["--metrics", run_folder / "metrics.tsv", "--output", output]
    done = run(script, *files, *options)
    assert done.exit_code == 0, done.output
    # Matplotlib draws letters as paths and leaves the text beside them as a comment.
    texts = re.findall(r"<!-- (.*?) -->", output.read_text())
    assert texts.index("two (untrained)") < texts.index("one")
    assert "10.5 [9.5, 11.5] dB, n = 12" in texts
    assert "10.0 [9.0, 11.0] dB, n = 12" in texts


def test_scores_of_two_sets_or_of_a_system_without_figures_are_refused(run_folder):
    options = ["--metrics", run_folder / "metrics.tsv", "--output", run_folder / "figure.svg"]
    one = run_folder / "one" / "mini.tsv"
    write_table(drawn(3), run_folder / "one" / "other.tsv")
    done = run(script, one, run_folder / "one" / "other.tsv", *options)
    assert "scores of mini and other" in done.output
    done = run(script, run_folder / "one" / "other.tsv", *options)
    assert "no si_snri of one on" in done.output
    assert not (run_folder / "figure.svg").exists()


def test_scores_are_read_as_numbers_and_checked(tmp_path):
    table = drawn(3)
    path = tmp_path / "scores.tsv"
    write_table(table, path)
    found = read_scores(path)
    pd.testing.assert_frame_equal(found, table.assign(mixture_ID=table["mixture_ID"]))
    for changed, message in (
        (table.drop(columns="sdri"), "missing column.* sdri; score the system anew"),
        (table.iloc[:0], "no scores"),
        (table.assign(si_snr=["x", *table["si_snr"][1:]]), "m0 has si_snr 'x', no number"),
        (table.assign(si_snri=[*table["si_snri"][:-1], np.inf]), "m2 has si_snri 'inf'"),
        (table.assign(source=1), "a source of m0 stands twice"),
    ):
        write_table(changed, path)
        with pytest.raises(ValueError, match=message):
            read_scores(path)


def history(seed):
    rng = np.random.default_rng(seed)
    rows = [
        (step, metric, rng.normal())
        for step in (0, 500, 1_000)
        for metric in ("train/loss", "valid/loss", "valid/si_snr", "valid/si_snri")
        if step or metric != "train/loss"
    ]
    return pd.DataFrame(rows, columns=["step", "metric", "value"])


def test_curves_of_separators_have_decibels_and_a_line_at_separating_nothing(tmp_path):
    table = history(0)
    figure = plot_training({"x": table, "y": history(1)})
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == [
        "train/loss",
        "valid/loss",
        "valid/si_snr (dB)",
        "valid/si_snri (dB)",
    ]
    first, _, zero = panels["valid/si_snri (dB)"].get_lines()
    assert list(zero.get_ydata()) == [0, 0]
    assert list(first.get_xdata()) == [0, 500, 1_000]
    expected = table[table["metric"] == "valid/si_snri"]["value"]
    assert list(first.get_ydata()) == list(expected)
    assert len(panels["valid/si_snr (dB)"].get_lines()) == 2
    write_table(table, tmp_path / "small" / "metrics.tsv")
    (tmp_path / "small" / "model.json").write_text('{"weights": "untrained"}')
    output = tmp_path / "curves.svg"
    done = run(training_script, tmp_path / "small" / "metrics.tsv", "--output", output)
    assert done.exit_code == 0, done.output
    assert "<!-- small (untrained) -->" in output.read_text()

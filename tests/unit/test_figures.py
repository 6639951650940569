import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from etaflow.evaluation.protocol import Protocol, Published
from etaflow.figures.base import save_figure, spread
from etaflow.figures.conversion import plot_references
from etaflow.figures.det import plot_det
from etaflow.figures.eta import plot_scree
from etaflow.figures.sweep import plot_sweep
from etaflow.figures.umap import Map, plot_umap, utterance_umap
from etaflow.pages.conversion import metrics_page as conversion_page
from etaflow.pages.listening import Cell, listening_page
from etaflow.pages.probe import probe_page
from etaflow.provenance import source_files


def metrics() -> pd.DataFrame:
    rows = [
        ("original", "wer", 3.0, 1.0, 5.0, 20, "published"),
        ("knnvc", "wer", 86.3, 80.0, 90.0, 60, "untrained"),
        ("knnvc", "eer_per_target", 12.5, 10.0, 15.0, 4, "untrained"),
    ]
    columns = ["system", "metric", "value", "low", "high", "n", "weights"]
    return pd.DataFrame(rows, columns=columns)


OURS = Protocol("LibriSpeech dev-clean", "Resemblyzer (GE2E)", "Whisper base", targets="40")


def metrics_page(title: str, table: pd.DataFrame, *published: Published) -> str:
    return conversion_page(title, table, OURS, published)


def test_the_metrics_page_marks_untrained_weights_beside_the_number() -> None:
    page = metrics_page("A < B", metrics())
    assert "A &lt; B" in page
    assert (
        '<td class="untrained">86.30<small>80.00 to 90.00</small><small>n = 60, untrained' in page
    )
    assert "<td>3.00<small>1.00 to 5.00</small><small>n = 20</small></td><td></td>" in page
    assert "Untrained weights in the path" in page
    assert "Untrained" not in metrics_page("t", metrics().iloc[:1])


def test_published_figures_stand_apart_with_what_differs() -> None:
    theirs = Protocol("LibriSpeech dev-clean", "x-vectors", "Whisper base", reference="5 < 10 s")
    page = metrics_page("t", metrics(), Published("kNN-VC", {"wer": 6.291}, theirs, "arXiv:1"))
    measured, published = page.split("<h2>Published elsewhere, not measured here</h2>")
    assert "6.29" not in measured
    assert "kNN-VC" not in measured
    assert "judge: Resemblyzer (GE2E); recogniser: Whisper base; targets: 40." in measured
    assert "<th>kNN-VC</th><td>6.29</td><td class=words>corpus: LibriSpeech" in published
    assert "reference: 5 &lt; 10 s</td>" in published
    # What either does not state is neither the same nor another.
    others = "<b>judge</b><br>not known: texts, targets, conversions, trials, reference</td>"
    assert others in published
    assert "86.30" not in published


def test_the_listening_page_plays_what_it_was_given() -> None:
    waveform = (np.sin(np.arange(1_600) / 5) * 0.5).astype(np.float32)
    page = listening_page(
        "t", [("a to b", "hi & ho", {"knnvc": Cell([("", waveform)])})], ["source", "knnvc"], "n"
    )
    assert "hi &amp; ho" in page
    (data,) = re.findall(r"base64,([^\"]+)", page)
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == 16_000
    np.testing.assert_allclose(played, waveform, atol=1e-4)


def test_the_listening_page_takes_any_rate_and_does_not_clip() -> None:
    loud = (np.sin(np.arange(800) / 5) * 1.6).astype(np.float32)
    cell = Cell([("one & two", loud), ("", loud / 4)], "both <of> it")
    page = listening_page("t", [("a", "b", {"x": cell})], ["x"], "n", 8_000, "mixture")
    first, second = re.findall(r"base64,([^\"]+)", page)
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(first)))
    assert rate == 8_000
    np.testing.assert_allclose(played, loud / np.abs(loud).max(), atol=1e-4)
    quiet, _ = soundfile.read(io.BytesIO(base64.b64decode(second)))
    np.testing.assert_allclose(quiet, loud / 4, atol=1e-4)
    assert "<tr><th>mixture</th><th>x</th>" in page
    assert "<td><small>both &lt;of&gt; it</small><small>one &amp; two</small><audio" in page
    assert page.count("<small>") == 3


def test_a_program_depends_on_the_figure_and_the_page_that_it_makes() -> None:
    root = Path(__file__).parents[2]

    def modules(script: str, part: str) -> list[str]:
        files = source_files(root / "scripts" / f"{script}.py", root / "etaflow")
        return [file.stem for file in files if file.parent.name == part]

    assert modules("plot_scree", "figures") == ["__init__", "base", "eta"]
    assert modules("plot_det", "figures") == ["__init__", "base", "det"]
    assert modules("render_probe", "pages") == ["__init__", "base", "probe"]
    assert modules("render_listening", "pages") == ["__init__", "base", "listening"]


def test_figures_are_written_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_figure(plot_scree({"eta": np.array([0.5, 0.3, 0.1])}), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_det_plot_names_the_error_rate(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "kind": ["real"] * 4 + ["converted"] * 4,
            "score": [0.9, 0.8, 0.7, 0.3, 0.6, 0.4, 0.2, 0.1],
        }
    )
    figure = plot_det({"knnvc": table})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "knnvc, EER 25.0 %"
    ]
    save_figure(figure, tmp_path / "det.svg")


def test_speakers_may_be_named_anything(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(6, 2))
    figure = plot_umap([Map("raw", points, ["a$^$b", "_x", "c"] * 2)], "n")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["_x", r"a\$^\$b", "c"]
    save_figure(figure, tmp_path / "umap.svg")


def test_a_speaker_has_one_colour_in_every_panel() -> None:
    points = np.random.default_rng(0).normal(size=(4, 2))
    maps = [Map(str(number), points, ["a", "b"] * 2) for number in range(4)]
    figure = plot_umap([*maps, Map("last", points, ["b", "c"] * 2)], "n")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["0", "1", "2", "3", "last"]
    colours = [[drawn.get_facecolor()[0] for drawn in axes.collections] for axes in shown]
    counts = [[len(drawn.get_offsets()) for drawn in axes.collections] for axes in shown]
    np.testing.assert_array_equal(colours, [colours[0]] * 5)
    assert counts == [[2, 2, 0]] * 4 + [[0, 2, 2]]


def test_what_is_drawn_from_many_is_spread_over_all() -> None:
    assert spread(11, 6).tolist() == [0, 2, 4, 6, 8, 10]
    assert spread(3, 6).tolist() == [0, 1, 2]
    drawn = spread(3_999, 2_000)
    assert (drawn[0], drawn[-1], len(drawn)) == (0, 3_998, 2_000)


def test_umap_keeps_utterances_of_a_cluster_together() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3) * 5, 15, axis=0)
    points = utterance_umap(centres + generator.normal(0, 0.1, centres.shape), seed=0)
    assert points.shape == (45, 2)
    means = points.reshape(3, 15, 2).mean(axis=1)
    width = points.reshape(3, 15, 2).std(axis=1).max()
    assert min(np.linalg.norm(means[i] - means[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > width


def test_the_probe_page_shows_both_features_and_warns_of_speakers_in_the_fit() -> None:
    columns = ["probe", "features", "unit", "accuracy", "low", "high", "chance", "majority", "n"]
    columns += ["utterances", "classes", "speakers_in_fit", "weights"]
    rows = [
        ["speaker", "raw", "utterance", 95.8, 90.0, 100.0, 50, 50, 48, 48, 2, 2, "published"],
        ["speaker", "eta", "utterance", 79.2, 70.0, 88.0, 50, 50, 48, 48, 2, 2, "published"],
        ["content", "raw", "phone", 9.9, 8.0, 12.0, 2.6, 8.9, 400, 40, 39, 0, "published"],
    ]
    page = probe_page("Probes", {"a<b": pd.DataFrame(rows, columns=columns)})
    assert "a&lt;b" in page
    assert "<td>95.8<small>90.0 to 100.0</small></td><td>79.2<small>70.0 to 88.0" in page
    assert page.count("2 of the speakers in the fit") == 1
    assert "<td>9.9<small>8.0 to 12.0</small></td><td></td>" in page
    assert "Untrained" not in page
    assert "phone, from segment means" in probe_page(
        "t", {"x": pd.DataFrame(rows[2:], columns=columns).assign(weights="untrained")}
    )


def test_the_sweep_figure_has_a_panel_an_axis_and_a_measure(tmp_path: Path) -> None:
    columns = ["axis", "value", "probe", "features", "unit", "result", "low", "high", "chance"]
    nan = float("nan")
    rows = [
        ["layer", "1", "R²", "fitted", "frame", 5.0, nan, nan, nan],
        ["layer", "2", "R²", "fitted", "frame", 6.0, nan, nan, nan],
        ["layer", "1", "speaker", "raw", "utterance", 80.0, 70.0, 90.0, 25.0],
        ["layer", "2", "speaker", "raw", "utterance", 70.0, 60.0, 75.0, 25.0],
        ["pca", "none", "R²", "fitted", "frame", 7.0, nan, nan, nan],
        ["pca", "none", "speaker", "raw", "utterance", 80.0, 70.0, 90.0, 25.0],
    ]
    table = pd.DataFrame(rows, columns=columns).assign(weights="untrained", speakers_in_fit=1)
    figure = plot_sweep(table)
    assert "some of the probed speakers were in the fit" in figure.get_supxlabel()
    assert sorted(panel.get_xlabel() for panel in figure.axes) == ["layer", "layer", "pca", "pca"]
    by_label = {panel.get_ylabel(): panel for panel in figure.axes if panel.get_ylabel()}
    assert sorted(by_label) == ["R², frame (%)", "speaker, utterance (%)"]
    (raw, *_) = by_label["speaker, utterance (%)"].get_lines()
    assert list(raw.get_ydata()) == [80.0, 70.0]
    save_figure(figure, tmp_path / "sweep.svg")


def test_references_are_drawn_at_the_seconds_used_with_intervals(tmp_path: Path) -> None:
    columns = ["base", "asked", "seconds", "targets", "short", "metric", "value", "low", "high"]
    rows = [
        ["knnvc", "all", 60.5, 4, 0, "wer", 50.0, 40.0, 55.0],
        ["knnvc", "5", 5.0, 4, 0, "wer", 90.0, 80.0, 95.0],
        ["knnvc", "60", 58.2, 4, 3, "wer", 52.0, 45.0, 58.0],
        ["knnvc", "5", 5.0, 4, 0, "dnsmos", 2.0, 1.5, 2.5],
    ]
    table = pd.DataFrame(rows, columns=columns).assign(weights="untrained")
    figure = plot_references(table)
    wer, dnsmos = figure.axes
    assert (wer.get_ylabel(), dnsmos.get_ylabel()) == ("word error rate (%)", "DNSMOS")
    assert wer.get_xscale() == "log"
    curve = wer.get_lines()[0]
    assert list(curve.get_xdata()) == [5.0, 58.2, 60.5]
    assert list(curve.get_ydata()) == [90.0, 52.0, 50.0]
    (bars,) = [lines.get_segments() for lines in wer.collections]
    assert [list(bar[:, 1]) for bar in bars] == [[80.0, 95.0], [45.0, 58.0], [40.0, 55.0]]
    assert "60 s asked: 3 of 4 targets have less, median 58.2 s" in figure.get_supxlabel()
    assert "untrained" in figure.get_supxlabel()
    legend = wer.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["knnvc (untrained)"]
    save_figure(figure, tmp_path / "references.svg")

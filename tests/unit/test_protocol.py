"""Beside the figures of a run: its protocol, published figures, amounts of reference."""

from pathlib import Path

import pandas as pd
import pytest

from etaflow.evaluation.protocol import PUBLISHED, UNKNOWN, Protocol, run_protocol
from etaflow.evaluation.references import reference_table
from etaflow.evaluation.tables import COLUMNS, METRIC_NOTES
from etaflow.manifest import write_table
from tests.workflow_tools import load_config

SETTINGS = {
    "corpus": {"name": "mini", "kind": "mini", "split": {"by": "speaker", "test_fraction": 0.2}},
    "judge": {"architecture": "resemblyzer"},
    "asr": {"engine": "pocketsphinx", "grammar": "mini"},
    "pairs": {"sources_per_speaker": 5},
    "bootstrap_rounds": 100,
}
ROWS = [
    ("original", "dnsmos", 3.0, 2.0, 4.0, 20, "published"),
    ("knnvc", "wer", 30.0, 20.0, 40.0, 59, "untrained"),
    ("knnvc", "eer_per_target", 3.0, 2.0, 4.0, 4, "untrained"),
    ("knnvc", "dnsmos", 3.0, 2.0, 4.0, 60, "untrained"),
    ("knnvc-5s", "wer", 50.0, 40.0, 60.0, 59, "untrained"),
    ("knnvc-5s", "cer", 50.0, 40.0, 60.0, 59, "untrained"),
]
METRICS = pd.DataFrame(ROWS, columns=COLUMNS)


def test_the_protocol_of_a_run_is_its_config_and_its_counts() -> None:
    found = run_protocol(SETTINGS, METRICS)
    assert found.corpus == "mini (mini), test split"
    assert found.judge == "Resemblyzer (GE2E)"
    assert found.recogniser == "PocketSphinx, the closed grammar of the corpus"
    assert (found.targets, found.conversions) == ("4", "60")
    assert found.intervals.endswith("100 rounds")
    listed = run_protocol(SETTINGS | {"pairs": {"table": "pairs.tsv"}}, METRICS)
    assert listed.corpus == "mini (mini), chosen pairs"
    assert listed.reference == "as the table of pairs lists it"
    alone = run_protocol(SETTINGS, METRICS[METRICS["system"] == "original"])
    assert (alone.targets, alone.conversions) == (UNKNOWN, UNKNOWN)


def test_the_protocol_of_the_paper_scale_run_is_told_in_published_terms() -> None:
    config = load_config("librispeech")
    conversion, models = config["conversion"], config["models"]
    settings = {
        "corpus": config["corpora"][conversion["corpus"]] | {"name": conversion["corpus"]},
        "judge": models[conversion["judge"]],
        "asr": conversion["asr"] | {"repo": models[conversion["asr"]["model"]]["repo"]},
        "pairs": conversion["pairs"],
        "bootstrap_rounds": 1000,
    }
    found = run_protocol(settings, METRICS)
    assert found.recogniser == "Whisper large-v3"
    other, unknown = PUBLISHED[0].protocol.differences(found)
    assert (PUBLISHED[0].system, other) == ("kNN-VC", ["recogniser", "texts"])
    assert unknown == ["targets", "conversions", "trials", "reference"]


def test_a_protocol_differs_where_both_say_and_say_otherwise() -> None:
    one = Protocol(corpus="a", judge="x", targets="40", intervals="none")
    other = Protocol(corpus="a", judge="y", recogniser="z", intervals="some")
    assert one.words() == "corpus: a; judge: x; targets: 40; intervals: none"
    differing, unknown = one.differences(other)
    assert differing == ["judge"]
    assert unknown == ["recogniser", "texts", "targets", "conversions", "trials", "reference"]


def test_published_figures_have_known_names_and_a_source() -> None:
    for each in PUBLISHED:
        assert set(each.figures) <= set(METRIC_NOTES)
        assert each.source
        assert each.protocol.stated()
    assert len({each.system for each in PUBLISHED}) == len(PUBLISHED)


def converted(folder: Path, seconds: dict[str, float]) -> Path:
    rows = [
        (f"{source}-to-{target}", source, "z", target, f"wav/{source}-to-{target}.wav", used)
        for target, used in seconds.items()
        for source in ("s1", "s2")
    ]
    columns = ["utterance_id", "source_id", "source_speaker", "target_speaker", "path"]
    write_table(
        pd.DataFrame(rows, columns=[*columns, "reference_seconds"]), folder / "converted.tsv"
    )
    return folder


def test_references_are_counted_as_used_and_a_lack_is_seen(tmp_path: Path) -> None:
    five = converted(tmp_path / "knnvc-5s", {"a": 5.0, "b": 3.5, "c": 4.98})
    everything = converted(tmp_path / "knnvc", {"a": 70.0, "b": 3.5, "c": 50.0})
    entries = [("knnvc", "5", five), ("knnvc", "all", everything)]
    table = reference_table(entries, METRICS)
    columns = ["base", "asked", "seconds", "targets", "short", "metric", "value"]
    assert table[columns].to_numpy().tolist() == [
        ["knnvc", "5", 4.98, 3, 1, "wer", 50.0],
        ["knnvc", "all", 50.0, 3, 0, "wer", 30.0],
        ["knnvc", "all", 50.0, 3, 0, "eer_per_target", 3.0],
        ["knnvc", "all", 50.0, 3, 0, "dnsmos", 3.0],
    ]


def test_a_table_that_does_not_say_its_reference_is_refused(tmp_path: Path) -> None:
    folder = converted(tmp_path / "knnvc", {"a": 5.0})
    table = pd.read_csv(folder / "converted.tsv", sep="\t", dtype=str)
    write_table(table.drop(columns="reference_seconds"), folder / "converted.tsv")
    with pytest.raises(ValueError, match="no column reference_seconds; run the rule convert"):
        reference_table([("knnvc", "all", folder)], METRICS)

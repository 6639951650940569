import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from etaflow.audio import SAMPLE_RATE, write_audio
from etaflow.evaluation.quality import load_dnsmos, mel_distance
from etaflow.evaluation.summary import metrics_table
from etaflow.evaluation.tables import concatenate_metrics, format_metrics_table, read_converted
from etaflow.evaluation.trials import conversion_trials
from etaflow.evaluation.utterances import RealSpeech, score_utterances
from etaflow.manifest import write_table
from etaflow.metrics import equal_error_rate
from etaflow.store import Embeddings, unit_rows

SCRIPTS = Path(__file__).parents[2] / "scripts"


def noise(seed, seconds=0.5):
    samples = np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE)) / 10
    return samples.astype(np.float32)


class Judge:
    """Embeds a waveform by its energy in three bands."""

    def embed(self, waveforms):
        bands = [np.array_split(np.abs(np.fft.rfft(w)), 3) for w in waveforms]
        return np.array([[band.mean() for band in bands] for bands in bands], np.float32)


@pytest.fixture
def real():
    """Four recordings of A near (1, 0, 0), three of B near (0, 1, 0), two of C."""
    rng = np.random.default_rng(0)
    speakers = [*"AAAABBBCC"]
    centres = {"A": (1, 0, 0), "B": (0, 1, 0), "C": (0, 0, 1)}
    vectors = np.array([centres[name] for name in speakers]) + rng.normal(0, 0.2, (9, 3))
    ids = np.array([f"{name}{i}" for i, name in enumerate(speakers)])
    return RealSpeech(ids, np.array(speakers), unit_rows(vectors))


def systems_rows(pairs):
    return pd.DataFrame(pairs, columns=["source_speaker", "target_speaker"])


def test_trials_are_those_of_the_protocol(real, caplog):
    converted = systems_rows([("B", "A"), ("A", "B"), ("C", "A"), ("A", "C")])
    vectors = unit_rows(np.random.default_rng(1).normal(size=(4, 3)))
    trials = conversion_trials(converted, vectors, real)
    a, b = real.of("A"), real.of("B")
    expected = {
        ("A", "real"): [a[i] @ a[j] for i in range(4) for j in range(i)],
        ("A", "converted"): [x @ y for x in a for y in vectors[[0, 2]]],
        ("B", "real"): [b[i] @ b[j] for i in range(3) for j in range(i)],
        ("B", "converted"): [x @ vectors[1] for x in b],
    }
    groups = trials.table.groupby(["target_speaker", "kind"])["score"]
    assert {name: pytest.approx(sorted(scores)) for name, scores in groups} == {
        name: sorted(scores) for name, scores in expected.items()
    }
    assert trials.sizes == [4, 2, 3, 1]
    assert "target speaker C: 2 real recording(s)" in caplog.text

    once = np.ones(10, int)
    rates = [
        equal_error_rate(
            expected[name, "real"] + expected[name, "converted"],
            [1] * len(expected[name, "real"]) + [0] * len(expected[name, "converted"]),
        )[0]
        for name in "AB"
    ]
    assert trials.eer_per_target(once) == pytest.approx(100 * np.mean(rates))


def test_drawing_an_utterance_twice_repeats_its_trials_but_not_with_itself(real):
    converted = systems_rows([("B", "A")] * 3)
    vectors = unit_rows(np.random.default_rng(1).normal(size=(3, 3)) + np.array([2, 0, 0]))
    counts = np.array([2, 0, 1, 1, 0, 3, 1])  # four recordings of A, three conversions
    trials = conversion_trials(converted, vectors, real)
    drawn = [0, 0, 2, 3]
    recordings = real.of("A")
    positive = [
        recordings[i] @ recordings[j] for n, i in enumerate(drawn) for j in drawn[:n] if i != j
    ]
    negative = [recordings[i] @ vectors[j] for i in drawn for j in [1, 1, 1, 2]]
    rate, _ = equal_error_rate(positive + negative, [1] * len(positive) + [0] * len(negative))
    assert trials.eer_per_target(counts) == pytest.approx(100 * rate)
    assert trials.eer_pooled(counts) == pytest.approx(100 * rate)
    assert np.isnan(trials.eer_pooled(np.array([4, 0, 0, 0, 1, 1, 1])))


def test_perfect_and_hopeless_conversions(real):
    converted = systems_rows([("B", "A")] * 4)
    hopeless = conversion_trials(converted, real.of("B")[[0, 1, 2, 0]], real)
    assert hopeless.eer_pooled(np.ones(8, int)) == 0
    # The recordings themselves, passed off as conversions, are at least as near as each other.
    perfect = conversion_trials(converted, real.of("A"), real)
    assert perfect.eer_pooled(np.ones(8, int)) >= 50


def test_systems_that_do_not_convert_have_no_trials(real):
    trials = conversion_trials(systems_rows([("A", "A")]), np.eye(3)[:1], real)
    assert len(trials.table) == 0
    assert trials.sizes == []


def test_similarity_leaves_the_recording_itself_out(real):
    own = real.of("A")[1]
    others = np.delete(real.of("A"), 1, axis=0).mean(axis=0)
    expected = own @ others / np.linalg.norm(others)
    assert real.similarity(own, "A", without=real.utterance_ids[1]) == pytest.approx(expected)
    store = Embeddings([*real.utterance_ids], [*real.speaker_ids], real.vectors, "judge", "trained")
    assert real.similarity(own, "A") == pytest.approx(own @ store.speaker_means()["A"])
    alone = RealSpeech(real.utterance_ids[:1], real.speaker_ids[:1], real.vectors[:1])
    assert np.isnan(alone.similarity(own, "A", without=real.utterance_ids[0]))


def test_mel_distance_is_the_log_ratio_of_levels():
    waveform = noise(0)
    assert mel_distance(waveform, waveform) == 0
    assert mel_distance(waveform, waveform / 2) == pytest.approx(np.log(2), rel=1e-3)
    with pytest.raises(ValueError, match="differ"):
        mel_distance(waveform, waveform[:-1])


def test_dnsmos_is_that_of_speechmos():
    from speechmos import dnsmos

    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, 30_000).astype(np.float32)
    waveform *= np.sin(np.arange(30_000) / 900) ** 2
    assert load_dnsmos()(waveform) == pytest.approx(
        dnsmos.run(waveform, 16_000)["ovrl_mos"], abs=1e-4
    )


def test_dnsmos_takes_loud_waveforms_and_dislikes_noise():
    judge = load_dnsmos()
    loud = noise(0, seconds=9.1) * 20
    assert judge(loud) == pytest.approx(judge(loud / np.abs(loud).max()))
    assert 1 <= judge(loud) <= 2


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Two speakers' recordings, and their waveforms with a hundredth of noise as a system."""
    # DNSMOS takes a second a waveform and has a test of its own.
    monkeypatch.setattr("etaflow.evaluation.utterances.load_dnsmos", lambda: lambda waveform: 3.0)
    rows, made = [], []
    for i, speaker in enumerate("XXXYYY"):
        name, path = f"{speaker}{i}", tmp_path / f"{speaker}{i}.wav"
        write_audio(path, noise(i))
        rows.append([name, speaker, "s", "test", str(path), 8000, 16000, "", "0000", "0"])
        write_audio(tmp_path / "made" / path.name, np.append(noise(i) + noise(9 + i) / 100, 0))
        made.append([f"m{i}", name, speaker, speaker, path.name, 8001, "0", "a b"])
    columns = ["utterance_id", "speaker_id", "session_id", "split", "path", "num_samples"]
    columns += ["sample_rate", "text", "shard", "checksum"]
    manifest = pd.DataFrame(rows, columns=columns)
    columns = ["utterance_id", "source_id", "source_speaker", "target_speaker", "path"]
    converted = pd.DataFrame(made, columns=[*columns, "num_samples", "checksum", "text"])
    write_table(converted, tmp_path / "made" / "converted.tsv")
    vectors = Judge().embed([noise(i) for i in range(6)])
    embeddings = Embeddings([*manifest["utterance_id"]], [*"XXXYYY"], vectors, "judge", "trained")
    real = RealSpeech.select(manifest, embeddings, {"X", "Y"})
    converted = read_converted(tmp_path / "made" / "converted.tsv")
    heard = ["a b", "a", "", "x y z", "a b", "a b"]
    transcripts = converted[["utterance_id"]].assign(reference=converted["text"], hypothesis=heard)
    sources = dict(zip(manifest["utterance_id"], manifest["path"], strict=True))
    return converted, transcripts, sources, real


def test_copy_synthesis_is_scored_against_its_sources(study):
    scores, vectors = score_utterances("mine", *study, Judge(), copies=True, threads=2)
    assert scores["word_errors"].tolist() == [0, 1, 2, 3, 0, 0]
    assert scores["si_snr"].tolist() == pytest.approx([40] * 6, abs=0.5)
    assert (scores["mel_distance"] < 0.05).all()
    assert scores["similarity_target"].between(0.9, 1).all()
    assert scores["similarity_source"].isna().all()
    assert (scores["dnsmos"] == 3).all()
    assert vectors.shape == (6, 3)

    table = metrics_table("c", scores, conversion_trials(study[0], vectors, study[3]), "published")
    assert list(table) == ["system", "metric", "value", "low", "high", "n", "weights"]
    figures = table.set_index("metric")
    metrics = ["wer", "cer", "similarity_target", "dnsmos", "mel_distance", "si_snr"]
    assert list(figures.index) == metrics
    assert figures.loc["wer", ["value", "n"]].tolist() == [50, 6]
    assert ((figures["low"] <= figures["value"]) & (figures["value"] <= figures["high"])).all()


def test_conversions_are_scored_by_speaker(study):
    converted, transcripts, sources, real = study
    swapped = converted["source_speaker"].map({"X": "Y", "Y": "X"})
    converted = converted.assign(target_speaker=swapped)
    transcripts = transcripts.assign(reference="")
    scores, vectors = score_utterances("knnvc", converted, transcripts, sources, real, Judge())
    assert scores[["words", "si_snr", "mel_distance"]].isna().all(axis=None)
    assert scores["similarity_source"].notna().all()
    trials = conversion_trials(converted, vectors, real)
    table = metrics_table("knnvc", scores, trials, "untrained", rounds=50)
    metrics = ["eer_per_target", "eer_pooled", "similarity_target", "similarity_source"]
    assert table["metric"].tolist() == [*metrics, "nearer_target", "dnsmos"]
    assert table["n"].tolist() == [2, 2 * (3 + 9), 6, 6, 6, 6]
    assert table.equals(metrics_table("knnvc", scores, trials, "untrained", rounds=50))


def test_how_many_conversions_are_nearer_the_target(study):
    scores, vectors = score_utterances("knnvc", *study, Judge())
    trials = conversion_trials(study[0], vectors, study[3])
    scores["similarity_target"] = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    scores["similarity_source"] = [0.4, 0.5, 0.6, 0.4, 0.4, np.nan]
    table = metrics_table("knnvc", scores, trials, "trained").set_index("metric")
    assert table.loc["nearer_target", ["value", "n"]].tolist() == [60, 5]


def test_no_text_is_said_and_not_scored(study, caplog):
    scores, vectors = score_utterances(
        "s", study[0], study[1].assign(reference="..."), *study[2:], Judge()
    )
    with caplog.at_level(logging.WARNING):
        table = metrics_table(
            "s", scores, conversion_trials(study[0], vectors, study[3]), "trained"
        )
    assert "wer" not in set(table["metric"])
    assert "no utterance has a text" in caplog.text


def test_what_does_not_fit_together_is_named(study):
    converted, transcripts, sources, real = study
    with pytest.raises(ValueError, match=r"1 utterance.* not transcribed, the first is m0"):
        score_utterances("s", converted, transcripts[1:], sources, real, Judge())
    with pytest.raises(ValueError, match="not in the manifest, the first is X0"):
        score_utterances("s", converted, transcripts, {}, real, Judge())
    manifest = pd.DataFrame({"utterance_id": ["X0"], "speaker_id": ["X"]})
    embeddings = Embeddings(["X0"], ["X"], np.ones((1, 2)), "judge", "trained")
    with pytest.raises(ValueError, match=r"of speaker.* Q, Z"):
        RealSpeech.select(manifest, embeddings, {"X", "Z", "Q"})


METRICS = "system\tmetric\tvalue\tlow\thigh\tn\tweights\n"


def run(script, *arguments):
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_tables_are_collected_in_order_and_shown(tmp_path):
    one, two, both = (tmp_path / f"{name}.tsv" for name in ("one", "two", "both"))
    one.write_text(METRICS + "z\twer\t5.0\t4.0\t6.126\t9\tpublished\n")
    two.write_text(
        METRICS + "a\twer\t50.0\t40.0\t60.0\t9\tuntrained\na\tcer\t1.0\t0.0\t2\t9\tuntrained\n"
    )
    done = run("collect_metrics.py", "--metrics", one, "--metrics", two, "--output", both)
    assert (done.returncode, done.stdout) == (0, "")
    assert both.read_text() == one.read_text() + two.read_text().removeprefix(METRICS)
    shown = run("show_metrics.py", both, both).stdout.splitlines()
    assert shown[0].split() == ["z", "a"]
    assert shown[1].split(maxsplit=1) == ["wer", "5.00 [4.00, 6.13]  50.00 [40.00, 60.00]"]
    assert shown[2].split(maxsplit=1) == ["cer", "1.00 [0.00, 2.00]"]
    assert shown[4:] == shown[:4]
    assert shown[3:4] == [
        "a: untrained weights in the path: these numbers say that the workflow runs, "
        "not how well the method works"
    ]
    assert format_metrics_table(concatenate_metrics([one])).count("\n") == 1


def test_a_metric_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "one.tsv"
    path.write_text(METRICS + "z\twer\t5.0\t4.0\t6.0\t9\tpublished\n")
    with pytest.raises(ValueError, match="wer of z stands twice"):
        concatenate_metrics([path, path])
    path.write_text("system\tmetric\nz\twer\n")
    with pytest.raises(ValueError, match="columns"):
        concatenate_metrics([path])


def test_the_transcribing_script_writes_a_row_a_waveform(tmp_path):
    write_audio(tmp_path / "u.wav", np.zeros(8000, np.float32))
    columns = ["utterance_id", "source_id", "source_speaker", "target_speaker", "path"]
    row = pd.DataFrame([["u", "u", "s", "s", "u.wav"]], columns=columns)
    write_table(row.assign(num_samples=8000, checksum="0"), tmp_path / "c.tsv")
    config = json.dumps({"engine": "pocketsphinx", "grammar": "mini"})
    output = tmp_path / "t.tsv"
    done = run(
        "transcribe.py", "--config", config, "--converted", tmp_path / "c.tsv", "--output", output
    )
    assert done.returncode == 0, done.stderr
    assert output.read_text() == "utterance_id\thypothesis\nu\t\n"
    config = json.dumps({"engine": "faster-whisper"})
    done = run(
        "transcribe.py", "--config", config, "--converted", tmp_path / "c.tsv", "--output", output
    )
    assert "without --model-dir" in done.stderr


@pytest.mark.parametrize("measured_on", ["trials", "mixtures"])
def test_a_block_is_printed_for_each_list_or_set_and_a_line_for_each_system(
    measured_on: str,
) -> None:
    rows = [
        [system, trials, metric, value, value - 1, value + 1, 10, weights]
        for trials in ("vox1-o", "mine")
        for system, weights in (("b", "trained"), ("a", "untrained"))
        for metric, value in (("eer", 5.0), ("cllr", 2.0))
        if (system, metric) != ("a", "cllr")
    ]
    columns = ["system", measured_on, "metric", "value", "low", "high", "n", "weights"]
    printed = format_metrics_table(pd.DataFrame(rows, columns=columns)).splitlines()
    assert printed[0].split() == ["vox1-o", "eer", "cllr"]
    assert printed[1] == "b       5.00 [4.00, 6.00]  2.00 [1.00, 3.00]"
    assert printed[2] == "a       5.00 [4.00, 6.00]"
    assert [line.split()[0] for line in printed[3:6]] == ["mine", "b", "a"]
    assert printed[6].startswith("a: untrained weights")

"""Amounts, rates and tables of a plan, with known answers."""

from pathlib import Path
from typing import Any

import pytest

from etaflow.corpora import librispeech, libritts, sizes
from etaflow.corpora.kathbath import LANGUAGES
from etaflow.corpora.librimix import METADATA
from etaflow.pairs import sample_pairs
from etaflow.planning.amounts import amount_of
from etaflow.planning.rates import (
    Rate,
    measured_rates,
    rate_of,
    read_benchmark,
    shipped_rates,
    went_on,
)
from etaflow.planning.speech import UNKNOWN, Corpus, read_shard
from etaflow.planning.study import Amount, Study
from etaflow.planning.table import duration, format_rows, format_totals, rows_of, size
from etaflow.trials import generate_trials
from tests.planning_tools import make_job, manifest_rows, write_shards

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
FIRST = {("a", "1", "train"): [1800.0, 1800.0], ("b", "1", "train"): [7200.0]}
SECOND = {("c", "1", "test"): [360.0, 360.0], ("c", "2", "test"): [720.0]}
SECOND |= {("d", "1", "test"): [1080.0, 1080.0, 1080.0]}


def config(**sections: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"corpora": {}, "models": {}, "encoders": {}, "separators": {}}
    empty |= {"pretraining": {}}
    return {"run": "r", **empty, **sections}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two shards: 3 hours of training, 1.3 of test."""
    tables = [manifest_rows(f"{i:04d}", rows) for i, rows in enumerate((FIRST, SECOND))]
    write_shards(tmp_path / "results/r", "own", tables)
    monkeypatch.chdir(tmp_path)
    ssl = {"model": "large", "dtype": "float16", "precision": "float32"}
    large = {"source": "huggingface", "architecture": "wavlm", "repo": "microsoft/wavlm-large"}
    encoder = {"corpus": "own", "speakers": 2, "utterances": 2, "epochs": 5, "crop_seconds": 3.0}
    encoder |= {"network": {"kind": "ecapa", "channels": 8, "dim": 16}, "precision": "float32"}
    encoder |= {"loss": {"kind": "ge2e"}, "patience": None}
    trials = {"corpus": "own", "split": "test", "targets": None, "nontargets": None}
    return Study(
        config(
            corpora={"own": {"kind": "folder", "shards": 2}},
            models={"large": large, "resemblyzer": {"architecture": "resemblyzer"}},
            ssl={"l": ssl},
            encoders={"e": encoder},
            conversion={"corpus": "own", "pairs": {"sources_per_speaker": 2}, "asr": {}},
            verification={
                "trials": {
                    "across": trials | {"across_sessions": True},
                    "within": trials | {"across_sessions": False},
                    "drawn": trials | {"targets": 3, "nontargets": 4},
                    "o": {"corpus": "own", "list": "vox1-o"},
                }
            },
        )
    )


def test_manifests_are_counted_by_shard_and_split(study: Study) -> None:
    corpus = study.corpora["own"]
    shard = corpus.shard("0000")
    assert (shard.hours, shard.utterances, shard.speakers) == (3.0, 3, 2)
    assert shard.squares == 1.0 + 4.0
    assert shard.source == "manifests"
    test = study.whole("own", "test")
    assert (test.hours, test.utterances, test.speakers) == (pytest.approx(1.3), 6, 2)
    assert corpus.shard("0001", "train").utterances == 0


@pytest.mark.parametrize("text", ["", "junk\n", "\0\xff\n"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "0000.tsv"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"{file} is no manifest: .* makes it again"):
        read_shard(file)


def test_a_shard_is_read_once_while_it_stays(tmp_path: Path) -> None:
    write_shards(tmp_path, "c", [manifest_rows("0000", FIRST)])
    file = tmp_path / "manifests/c/0000.tsv"
    assert read_shard(file) is read_shard(file)
    assert list(read_shard(file)) == ["speaker_id", "session_id", "split", "seconds"]


def published(**entry: Any) -> Corpus:
    return Corpus("c", {"shards": 4, **entry}, Path("nowhere"))


def test_published_corpora_are_known_before_a_manifest_is() -> None:
    subsets = ["train-clean-100", "train-clean-360", "train-other-500"]
    corpus = published(kind="librispeech", subsets=[*subsets, "test-clean"])
    train = corpus.whole("train")
    assert train.hours == pytest.approx(960.9)
    assert (train.utterances, train.speakers) == (281_241, 2338)
    assert corpus.whole("test").hours == 5.4
    assert corpus.shard("0000").hours == pytest.approx((960.9 + 5.4) / 4)
    assert corpus.shard("0000").source == "LibriSpeech paper, table 1, mean"
    least = 100.6**2 / 251 + 363.6**2 / 921 + 496.7**2 / 1166
    assert train.squares == pytest.approx(least)
    assert published(kind="voxceleb1").whole("test").utterances == 4874


def test_the_split_of_the_config_takes_its_share() -> None:
    split = {"by": "speaker", "test_fraction": 0.2}
    corpus = published(kind="kathbath", language="hindi", split=split)
    assert corpus.whole("test").hours == pytest.approx(0.2 * 150.2)
    assert corpus.whole("train").utterances is None
    mini = published(kind="mini", speakers=10, sentences=20, split=split)
    assert mini.whole("train").utterances == pytest.approx(160)
    assert mini.whole().hours == pytest.approx(200 * 2.18 / 3600)
    espeak = published(kind="espeak", speakers=10, sentences=20, split=split)
    assert espeak.whole("test").hours == pytest.approx(40 * 3.94 / 3600)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "folder"},
        {"kind": "vctk"},
        {"kind": "librispeech", "subsets": ["train-clean-100", "of-mine"]},
    ],
)
def test_what_nobody_published_is_unknown(entry: dict[str, Any]) -> None:
    speech = published(**entry).shard("0000")
    assert (speech.hours, speech.utterances, speech.source) == (None, None, UNKNOWN)


def test_the_published_sizes_are_of_what_can_be_fetched() -> None:
    assert set(sizes.LIBRISPEECH) == set(librispeech.CHECKSUMS)
    assert set(sizes.LIBRITTS) == set(libritts.CHECKSUMS)
    assert set(sizes.KATHBATH) == set(LANGUAGES)
    assert set(sizes.MIXTURES) == set(METADATA)
    # The totals that the papers state.
    assert sum(s.hours or 0 for s in sizes.LIBRITTS.values()) == pytest.approx(585.8)
    assert sum(s.speakers for s in sizes.LIBRITTS.values()) == 2456
    # The README's own total is 100 more.
    assert sum(s.hours or 0 for s in sizes.KATHBATH.values()) == pytest.approx(1584.3)
    assert sum(s.speakers for s in sizes.KATHBATH.values()) == 1218


def test_features_are_as_large_as_their_format(study: Study) -> None:
    wildcards = {"corpus": "own", "ssl": "l", "layer": "6", "shard": "0000"}
    amount = amount_of(make_job("dump_features", wildcards=wildcards), study)
    assert (amount.value, amount.unit) == (3.0, "h of speech")
    assert amount.variant == "wavlm-large layer 6 float32"
    assert amount.written == 3 * 3600 * 50 * 1024 * 2
    several = wildcards | {"layer": "6 15"}
    amount = amount_of(make_job("dump_features", wildcards=several), study)
    assert amount.variant == "wavlm-large layer 15 float32"
    assert amount.written == 2 * 3 * 3600 * 50 * 1024 * 2


def test_prematching_grows_with_the_square_of_a_speaker(study: Study) -> None:
    wildcards = {"corpus": "own", "ssl": "l", "layer": "6", "shard": "0000"}
    amount = amount_of(make_job("prematch", wildcards=wildcards), study)
    assert (amount.value, amount.unit) == (5.0, "h x h of a speaker")
    assert amount.written == 3 * 3600 * 50 * 1024 * 2
    amount = amount_of(make_job("prematch", wildcards=wildcards | {"shard": "0001"}), study)
    assert (amount.value, amount.written) == (0, 0)


def test_embeddings_are_an_utterance_each(study: Study) -> None:
    wildcards = {"corpus": "own", "encoder": "resemblyzer", "cut": "-first8s", "shard": "0001"}
    amount = amount_of(make_job("embed_speakers", wildcards=wildcards), study)
    assert amount.variant == "resemblyzer first8s"
    assert amount.written == 6 * 256 * 4


def test_a_pretraining_is_made_of_the_training_speech_and_its_steps(study: Study) -> None:
    targets = {"kind": "layer", "model": "p", "layer": 2, "clusters": 50}
    network = {"num_hidden_layers": 4, "hidden_size": 256}
    entry = {"corpus": ["own"], "network": network, "targets": targets, "steps": 30}
    entry |= {"batch_size": 8, "crop_seconds": 2.5, "precision": "bfloat16"}
    study.config["pretraining"] |= {"p": entry, "q": entry | {"network": {"pretrained": "p"}}}
    study.config["ssl"]["l"]["model"] = "q"
    amount = amount_of(make_job("cluster_frames", wildcards={"pretrained": "q"}), study)
    assert (amount.value, amount.unit) == (3.0, "h of speech")
    assert amount.variant == "wavlm 4 layers of 256 layer 2 50 clusters"
    assert amount.written == 3 * 3600 * 50 * 2
    amount = amount_of(make_job("pretrain_ssl", wildcards={"pretrained": "q"}), study)
    assert (amount.value, amount.unit) == (30, "steps")
    assert amount.variant == "wavlm 4 layers of 256 8 x 2.5 s bfloat16"
    wildcards = {"corpus": "own", "ssl": "l", "layer": "2", "shard": "0000"}
    amount = amount_of(make_job("dump_features", wildcards=wildcards), study)
    assert amount.written == 3 * 3600 * 50 * 256 * 2


def test_epochs_are_turned_into_steps(study: Study) -> None:
    job = make_job("train_speaker_encoder", wildcards={"encoder": "e"})
    amount = amount_of(job, study)
    assert (amount.value, amount.at_most) == (4, True)  # 5 epochs of 3 utterances by batches of 4
    assert amount.variant == "ecapa channels 8 dim 16 ge2e 2 x 2 x 3 s float32"


@pytest.mark.parametrize("name", ["across", "within", "drawn"])
def test_as_many_trials_are_counted_as_are_drawn(study: Study, name: str) -> None:
    table = manifest_rows("0001", SECOND)
    entry = study.config["verification"]["trials"][name]
    drawn = (
        generate_trials(
            table, entry["targets"], entry["nontargets"], 0, entry.get("across_sessions", True)
        )
        if name != "drawn"
        else range(7)
    )
    amount = amount_of(make_job("make_trials", wildcards={"trials": name}), study)
    assert (amount.value, amount.unit) == (len(drawn), "trials")


def test_published_trials_have_their_number(study: Study) -> None:
    amount = amount_of(make_job("make_trials", wildcards={"trials": "o"}), study)
    assert (amount.value, amount.source) == (37_611, "VoxCeleb's cleaned lists")


def test_as_many_hours_are_converted_as_there_are_pairs(study: Study) -> None:
    study.config["conversion"]["asr"] = {"engine": "pocketsphinx", "grammar": None}  # type: ignore[index]
    amount = amount_of(make_job("transcribe", wildcards={"system": "knn"}), study)
    pairs = sample_pairs(manifest_rows("0001", SECOND), 2, 0)
    assert amount.value == pytest.approx(len(pairs) * 1.3 / 6)
    assert amount.variant == "pocketsphinx without a grammar"


def test_a_rule_that_nothing_is_said_about_is_a_job(study: Study) -> None:
    assert amount_of(make_job("plot_umap"), study) == Amount(1)


def finished(folder: Path, name: str, seconds: str, memory: str = "100.00", **changes: Any) -> Any:
    """A job whose benchmark file is there."""
    file = folder / f"{name}.tsv"
    file.write_text(HEADER + "\t".join([seconds, "0:00:01", memory, *"-------"]) + "\n")
    return make_job("dump_features", str(file), **changes)


def test_rates_are_times_by_amounts(tmp_path: Path) -> None:
    jobs = [finished(tmp_path, "a", "10.00"), finished(tmp_path, "b", "50.00", "300.00")]
    amounts = [Amount(1, "h", "v"), Amount(3, "h", "v")]
    rates = measured_rates(zip(jobs, amounts, strict=True))
    assert list(rates) == [("dump_features", "v", "h", "cpu")]
    rate = rates["dump_features", "v", "h", "cpu"]
    assert (rate.seconds, rate.memory_mb) == (15.0, 300.0)
    assert rate.source == f"2 finished jobs of this run, {tmp_path}"


def test_nonsense_is_not_divided(tmp_path: Path) -> None:
    log = tmp_path / "went_on.log"
    log.write_text(
        "a warning\nfeatures of shard 0000: 40/144 utterances [00:00<?, ? utterances/s]\n"
    )
    hour = Amount(1, "h", "v")
    passed_over = [
        (finished(tmp_path, "zero", "10.00"), Amount(0, "h", "v")),
        (finished(tmp_path, "unknown", "10.00"), Amount(None, "h", "v")),
        (finished(tmp_path, "nothing", "0.00"), hour),
        (finished(tmp_path, "text", "-"), hour),
        (make_job("dump_features", str(tmp_path / "missing.tsv")), hour),
        (finished(tmp_path, "resumed", "10.00", log=str(log)), hour),
        (finished(tmp_path, "other_config", "10.00", config_then=False), hour),
        (finished(tmp_path, "device_unknown", "10.00", takes_gpus=True), hour),
    ]
    assert measured_rates(passed_over) == {}
    (tmp_path / "empty.tsv").write_text("")
    assert read_benchmark(tmp_path / "empty.tsv") is None
    assert read_benchmark(Path(finished(tmp_path, "short", "0.5", "-").benchmark)) == (0.5, None)


def test_a_log_that_begins_at_zero_or_has_no_progress_is_of_a_whole_job(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "training: 0/40 steps [00:00<?, ? steps/s]\ntraining: 9/40 steps [00:05<00:20]\n"
    )
    assert not went_on(log)
    log.write_text("warming up\n")
    assert not went_on(log)
    assert not went_on(tmp_path / "none")


def test_a_gpu_has_rates_of_its_own(tmp_path: Path) -> None:
    hour = Amount(1, "h", "v")
    on_gpu = finished(tmp_path, "gpu", "10.00", takes_gpus=True, gpus_then=1)
    on_cpu = finished(tmp_path, "cpu", "90.00", takes_gpus=True, gpus_then=0)
    rates = measured_rates([(on_gpu, hour), (on_cpu, hour)])
    assert {key[3]: rate.seconds for key, rate in rates.items()} == {"gpu": 10.0, "cpu": 90.0}
    asking, not_asking = (make_job("dump_features", gpus=n, takes_gpus=True) for n in (1, 0))
    for job, device, seconds in ((asking, "gpu", 10.0), (not_asking, "cpu", 90.0)):
        rate, found = rate_of(job, hour, rates, {})
        assert (rate and rate.seconds, found) == (seconds, device)
    only_cpu = {key: rate for key, rate in rates.items() if key[3] == "cpu"}
    rate, found = rate_of(asking, hour, only_cpu, {})
    assert (rate and rate.seconds, found) == (90.0, "cpu")


def test_this_run_goes_before_the_table() -> None:
    key = ("dump_features", "v", "h", "cpu")
    here, shipped = Rate(1.0, 1, None, "here"), Rate(2.0, 1, None, "there")
    job, amount = make_job("dump_features"), Amount(1, "h", "v")
    assert rate_of(job, amount, {key: here}, {key: shipped}) == (here, "cpu")
    assert rate_of(job, amount, {}, {key: shipped}) == (shipped, "cpu")
    assert rate_of(job, amount, {}, {}) == (None, "cpu")


def test_the_table_that_is_shipped_can_be_read() -> None:
    rates = shipped_rates()
    assert {device for *_, device in rates} == {"cpu"}  # no GPU was at hand
    assert all(rate.seconds > 0 and rate.memory_mb for rate in rates.values())
    assert all("cores" in rate.source for rate in rates.values())
    assert ("dump_features", "wavlm-large layer 6 float32", "h of speech", "cpu") in rates


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.4, "9.4 s"),
        (42.6, "43 s"),
        (59.6, "1.0 min"),
        (1800, "30 min"),
        (3599, "1 h"),
        (12_240, "3.4 h"),
        (4_442_400, "1,234 h"),
    ],
)
def test_durations_have_two_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(1.5e3, "1.5 kB"), (999.6e6, "1 GB"), (353.9e9, "354 GB"), (2.5e12, "2.5 TB")],
)
def test_bytes_are_counted_in_thousands(count: float, text: str) -> None:
    assert size(count) == text


def test_unknowns_are_said_and_sums_are_of_the_rest() -> None:
    rate = Rate(3600.0, 2, 1500.0, "measured by hand")
    here = {("known", "v", "h of speech", "cpu"): rate}
    hours = [Amount(1.0, "h of speech", "v", "manifests", written=2e9)]
    hours += [Amount(None, "h of speech", "v", UNKNOWN)]
    jobs = [(make_job("known", asked_mb=None), amount) for amount in hours]
    jobs += [(make_job("new"), Amount(7, "steps", "", "config"))]
    rows = rows_of(jobs, here)
    assert [(row.rule, row.seconds, row.unknown) for row in rows] == [
        ("known", 7200.0, 1),
        ("new", None, 0),
    ]
    header, known, new, _, note = format_rows(rows)
    cells = [cell.strip() for cell in known.split("  ") if cell.strip()]
    assert cells == [
        *("known v", "2", "1 h of speech", "at least 2 h CPU", "2 GB", "1.5 GB"),
        *(f"manifests; {UNKNOWN}", "[1]"),
    ]
    cells = [cell.strip() for cell in new.split("  ") if cell.strip()]
    assert cells == ["new", "1", "7 steps", "not measured", "-", "asks 8 GB", "config", "-"]
    assert header.split()[:2] == ["rule", "jobs"]
    assert note == "[1] measured by hand"
    totals = format_totals(rows)
    assert totals[:2] == [
        "in all: 3 jobs",
        "processor time of jobs without a GPU: at least 2 h",
    ]
    assert "  not measured, and left out: new" in totals
    assert "  amount not known, and left out: known" in totals
    assert "disk: at least 2 GB, computed from the formats (FLAC as if uncompressed);" in totals
    assert totals[-1] == "  measured at most 1.5 GB (known)"


def test_what_asks_for_a_gpu_is_not_added_to_what_does_not() -> None:
    rate = Rate(1800.0, 1, None, "here")
    here = {("train", "", "steps", "cpu"): rate, ("plot", "", "job", "cpu"): rate}
    jobs = [(make_job("train", gpus=1, takes_gpus=True), Amount(4, "steps"))]
    jobs += [(make_job("plot"), Amount(1)), (make_job("new", gpus=1), Amount(1))]
    rows = rows_of(jobs, here)
    assert "2 h CPU, GPU not measured" in format_rows(rows)[3]
    totals = format_totals(rows)
    assert totals[1:3] == [
        "processor time of jobs without a GPU: at least 30 min",
        "GPU time: not known",
    ]
    assert totals[3].startswith("  no GPU rate is known of new, train: run one job")
    assert totals[5] == "  without a GPU train would take at least 2 h of a processor"
    on_gpu = here | {("train", "", "steps", "gpu"): Rate(9.0, 8, None, "there")}
    # Two GPUs have half of each batch: both together take as long as one would.
    twice = [(make_job("train", gpus=2, takes_gpus=True), Amount(100, "steps"))]
    assert format_totals(rows_of(twice, on_gpu))[2] == "GPU time: 15 min"


def test_memory_that_inputs_are_to_say_is_no_dash() -> None:
    job = make_job("fit", asked_mb=None, asks_by_inputs=True)
    rows = rows_of([(job, Amount(1)), (make_job("plot"), Amount(1))], {})
    fit, plot = format_rows(rows)[1:3]
    assert "asks by its inputs" in fit
    assert "asks 8 GB" in plot
    assert format_totals(rows)[-2:] == [
        "memory: the largest job asks for 8 GB (plot)",
        "  not known before their inputs are there: fit",
    ]


def test_time_on_several_gpus_is_that_of_all_of_them(tmp_path: Path) -> None:
    job = finished(tmp_path, "four", "10.00", takes_gpus=True, gpus=1, gpus_then=4)
    (rate,) = measured_rates([(job, Amount(2, "h", "v"))]).values()
    assert rate.seconds == 20.0

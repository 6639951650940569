"""What a worker computes: the library's own results, whoever else asks at the same time."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from etaflow.analysis import analyze
from etaflow.audio import Waveform, resample
from etaflow.converter import VoiceConverter
from etaflow.separation.networks import load_separator
from etaflow.separation.separate import separate
from etaflow.serve.engine import Engine, Known, References
from etaflow.serve.incoming import read
from etaflow.serve.messages import Job, Outcome, Recording
from etaflow.verification.verifier import Verifier
from tests.serve_tools import full_bundle

TASKS = ("convert", "analyze", "verify", "separate")
METHODS = ("copy", "knn", "linear", "mkl+knn", "knn-eta-source", "knn-eta")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_bundle(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine(bundle, TASKS, torch.device("cpu"), room=10**8)


@pytest.fixture(scope="module")
def converter(bundle: Path) -> VoiceConverter:
    return VoiceConverter.from_pretrained(bundle)


def voice(seed: int, seconds: float, rate: int = 16_000) -> Recording:
    """A buzz whose pitch and colour wander, which no two seeds share."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    pitch = 90 + 20 * seed + 10 * np.cumsum(random.normal(size=count)) / np.sqrt(count)
    wave = 0.2 * np.sin(np.cumsum(2 * np.pi * pitch / rate)) + 0.01 * random.normal(size=count)
    return recording(wave.astype(np.float32), rate, f"{seed}-{seconds}-{rate}")


def recording(wave: Waveform, rate: int, digest: str) -> Recording:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, "FLOAT", format="WAV")
    return Recording(file.getvalue(), rate, len(wave), digest)


def at_16k(recording: Recording) -> Waveform:
    return resample(read(recording), recording.rate, 16_000)


def expected(converter: VoiceConverter, job: Job) -> Waveform:
    source, *references = map(at_16k, job.recordings)
    waveform = converter.convert(source, references, job.topk, job.method)
    return waveform / max(1.0, np.abs(waveform).max())


def audio(outcome: Outcome) -> Waveform:
    assert outcome.refused is None
    assert not outcome.failed
    assert outcome.audio is not None
    (waveform,) = outcome.audio.waveforms
    return waveform


@pytest.mark.parametrize("method", METHODS)
def test_a_conversion_is_the_librarys(
    engine: Engine, converter: VoiceConverter, method: str
) -> None:
    job = Job("convert", (voice(1, 1.7), voice(2, 2.0, 44_100), voice(3, 1.1, 8_000)), method, 3)
    (outcome,) = engine.run([job])
    np.testing.assert_allclose(audio(outcome), expected(converter, job), atol=2e-4)
    assert outcome.audio is not None
    assert outcome.audio.rate == 16_000
    # References are known now.
    (again,) = engine.run([job])
    np.testing.assert_allclose(audio(again), audio(outcome), atol=2e-4)


def test_jobs_of_a_batch_do_not_notice_each_other(
    engine: Engine, converter: VoiceConverter
) -> None:
    jobs = [
        Job("convert", (voice(4 + n, 1 + 0.3 * n), voice(9 - n, 1.5)), METHODS[n], 4)
        for n in range(1, 6)
    ]
    short = recording(np.full(1100, 0.1, np.float32), 16_000, "short")
    few = Job("convert", (voice(1, 1.0), short), "knn", 4)
    mixed = [*jobs[:2], few, Job("verify", (voice(1, 1.0), voice(2, 1.0))), *jobs[2:]]
    outcomes = engine.run(mixed)
    assert outcomes[2].refused == "4 neighbours asked of a pool of 3 frames"
    assert set(outcomes[3].facts) >= {"same_speaker", "score", "threshold"}
    for job, outcome in zip(jobs, [*outcomes[:2], *outcomes[4:]], strict=True):
        np.testing.assert_allclose(audio(outcome), expected(converter, job), atol=2e-4)


def test_a_job_that_breaks_the_batch_fails_alone(engine: Engine, converter: VoiceConverter) -> None:
    # 100 samples are too short for a frame: the encoder refuses the whole batch.
    broken = Job(
        "convert", (recording(np.ones(100, np.float32), 16_000, "b"), voice(2, 1)), "knn", 4
    )
    good = Job("convert", (voice(11, 1.0), voice(12, 1.0)), "knn", 4)
    refused, done = engine.run([broken, good])
    assert refused.refused == "a waveform of 100 samples is too short for one frame"
    np.testing.assert_allclose(audio(done), expected(converter, good), atol=2e-4)


def test_what_is_no_fault_of_the_request_is_logged_and_not_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.converter, "vocode", fail)
    job = Job("convert", (voice(1, 1.0), voice(2, 1.0)), "knn", 4)
    (outcome,) = engine.run([job])
    assert outcome == Outcome(failed=True)
    assert "out of memory" in caplog.text
    assert "a job to convert failed, of 1.00 s (1-1.0-16000), 1.00 s (2-1.0-16000)" in caplog.text


def test_other_tasks_are_the_librarys(
    engine: Engine, bundle: Path, converter: VoiceConverter
) -> None:
    one, other = voice(1, 2.0, 22_050), voice(2, 1.5)
    analysis, verification, separation = engine.run(
        [Job("analyze", (one,)), Job("verify", (one, other)), Job("separate", (one,))]
    )
    assert analysis.facts == analyze(at_16k(one), converter).measures()
    verifier = Verifier.from_pretrained(bundle / "verifier")
    decision = verifier.score(at_16k(one), at_16k(other))
    assert verification.facts == {**vars(decision), "system": "cosine", "trials": verifier.trials}
    network = load_separator(bundle / "separator")[1]
    found = separate(network, resample(read(one), one.rate, network.sample_rate))
    assert separation.audio is not None
    assert separation.audio.rate == one.rate
    assert len(separation.audio.waveforms) == 2
    for ours, theirs in zip(separation.audio.waveforms, found, strict=True):
        assert len(ours) == one.num_samples
        back = resample(theirs, network.sample_rate, one.rate)[: one.num_samples]
        np.testing.assert_allclose(ours, back, atol=1e-5)


def test_references_are_kept_up_to_a_size_and_the_oldest_go() -> None:
    kept = References(room=2 * 400)
    for name in "abc":
        kept.keep(name, Known(torch.zeros(10, 10)))
        kept.get("a")
    assert [kept.get(name) is not None for name in "abc"] == [True, False, True]
    kept.keep("large", Known(torch.zeros(30, 10)))
    assert [kept.get(name) is not None for name in ("a", "c", "large")] == [True, True, False]


def test_without_room_conversions_are_the_same(bundle: Path, converter: VoiceConverter) -> None:
    engine = Engine(bundle, ("convert",), torch.device("cpu"), room=0)
    # Not by knn: of two neighbours as near as each other rounding takes either.
    jobs = [Job("convert", (voice(n, 1.0), voice(3, 1.5)), "mkl-eta", 4) for n in (1, 2)]
    for job, outcome in zip(jobs, engine.run(jobs), strict=True):
        np.testing.assert_allclose(audio(outcome), expected(converter, job), atol=2e-4)

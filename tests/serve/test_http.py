"""The API as a client meets it: a server in a process of its own, asked over HTTP."""

import base64
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import etaflow
from etaflow.analysis import analyze
from etaflow.audio import Waveform, read_audio, resampled_length
from etaflow.separation.files import separate_file
from etaflow.separation.networks import load_separator
from etaflow.verification.verifier import Verifier
from tests.serve_tools import (
    Running,
    audio_file,
    base64_of,
    counts,
    lively_bundle,
    samples_of,
    serve,
    spoken,
)

pytestmark = pytest.mark.slow

# Of 2^-15, by which samples may differ: libsndfile cuts where one would round, which is a step at
# most; float noise is a hundredth. Other recordings, methods and references give hundreds.
STEPS = 1.5
# Of waveforms with a peak of about 1 that were computed in another order.
NOISE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def full(folder: Path) -> Path:
    return lively_bundle(folder)


@pytest.fixture(scope="module")
def server(full: Path, folder: Path) -> Iterator[Running]:
    with serve(full, folder / "server") as running:
        yield running


@pytest.fixture(scope="module")
def converter(full: Path) -> etaflow.VoiceConverter:
    return etaflow.VoiceConverter.from_pretrained(full)


@pytest.fixture(scope="module")
def source() -> bytes:
    return audio_file(spoken(0, 1.3))


@pytest.fixture(scope="module")
def reference() -> bytes:
    return audio_file(spoken(1, 2.2, 24_000), 24_000)


def as_read(file: bytes, folder: Path) -> Waveform:
    """Mono at 16 kHz, as the library reads such a file from a disk."""
    path = folder / "recording"
    path.write_bytes(file)
    return read_audio(path)


def direct(
    converter: etaflow.VoiceConverter, folder: Path, files: list[bytes], *options: Any
) -> Waveform:
    """What the library says of (source, references …): at most as loud as can be written."""
    source, *references = (as_read(file, folder) for file in files)
    waveform = converter.convert(source, references, *options)
    return np.asarray(waveform / max(1.0, float(np.abs(waveform).max())))


def assert_same(file: bytes, waveform: Waveform) -> None:
    """A file of 16 bits at 16 kHz holds this waveform."""
    made, rate = samples_of(file)
    assert rate == 16_000
    assert made.shape == waveform.shape
    assert np.abs(made - waveform).max() <= STEPS / 2**15


def apart(files: list[bytes]) -> float:
    """The steps by which the two of these differ that are most alike."""
    waveforms = [samples_of(file)[0] * 2**15 for file in files]
    pairs = itertools.combinations(waveforms, 2)
    return float(min(np.abs(one - other).max() for one, other in pairs))


def post(server: Running, route: str, body: Any = None, **how: Any) -> requests.Response:
    response = requests.post(f"{server.url}{route}", json=body, timeout=300, **how)
    assert response.status_code == 200, response.text
    return response


def convert(server: Running, files: list[bytes], **fields: Any) -> requests.Response:
    """By a form."""
    parts = [("source", files[0]), *(("references", file) for file in files[1:])]
    return post(server, "/v1/convert", data=fields, files=parts)


RATES = [
    (8_000, 1, "WAV", "PCM_16"),
    (11_025, 2, "FLAC", "PCM_16"),
    (16_000, 1, "MP3", "MPEG_LAYER_III"),
    (22_050, 2, "WAV", "FLOAT"),
    (24_000, 1, "OGG", "VORBIS"),
    (44_100, 2, "MP3", "MPEG_LAYER_III"),
    (48_000, 1, "OGG", "OPUS"),
    (48_000, 6, "WAV", "PCM_24"),
    (96_000, 2, "FLAC", "PCM_24"),
]


@pytest.mark.parametrize(("rate", "channels", "kind", "subtype"), RATES)
def test_the_original_contract_takes_any_rate_and_format(
    server: Running,
    converter: etaflow.VoiceConverter,
    reference: bytes,
    tmp_path: Path,
    rate: int,
    channels: int,
    kind: str,
    subtype: str,
) -> None:
    waveform = np.stack([spoken(seed, 1.13, rate) for seed in range(channels)], axis=1)
    sent = audio_file(waveform, rate, kind, subtype=subtype)
    answer = post(
        server, "/predict", {"audio1": base64_of(sent), "audio2": base64_of(reference)}
    ).json()
    assert answer.keys() == {"output_wav_b64"}
    file = base64.b64decode(answer["output_wav_b64"], validate=True)
    assert file[:4] == b"RIFF"
    assert int.from_bytes(file[22:24], "little") == 1  # channel
    assert int.from_bytes(file[34:36], "little") == 16  # bits
    length = len(samples_of(sent)[0])
    assert len(samples_of(file)[0]) == resampled_length(length, rate)
    method = "knn-eta-source"
    assert_same(file, direct(converter, tmp_path, [sent, reference], 4, method))


def test_methods_neighbours_and_references_are_those_asked_for(
    server: Running, converter: etaflow.VoiceConverter, tmp_path: Path, source: bytes
) -> None:
    references = [audio_file(spoken(seed, 1.0)) for seed in (5, 6, 7)]
    health = server.health().json()
    made = {}
    for method in health["methods"]:
        answer = convert(server, [source, *references], method=method, topk=3)
        assert answer.headers["Content-Type"] == "audio/wav"
        assert answer.headers["X-Etaflow-Method"] == method
        assert answer.headers["X-Etaflow-Weights"] == "untrained"
        assert_same(answer.content, direct(converter, tmp_path, [source, *references], 3, method))
        made[method] = answer.content
    assert len(made) == 13
    # A transport takes away what is added to all frames, so it does not see eta-source.
    others = [name for name in made if not re.fullmatch(r"mkl.*-source", name)]
    assert apart([made[name] for name in others]) > 60 * STEPS
    one = convert(server, [source, *references], method="knn", topk=1).content
    few = convert(server, [source, references[0]], method="knn", topk=3).content
    assert apart([one, few, made["knn"]]) > 60 * STEPS
    assert_same(one, direct(converter, tmp_path, [source, *references], 1, "knn"))


def test_a_copy_needs_no_reference(
    server: Running, converter: etaflow.VoiceConverter, tmp_path: Path, source: bytes
) -> None:
    answer = convert(server, [source], method="copy")
    assert_same(answer.content, direct(converter, tmp_path, [source], 4, "copy"))


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_json_and_forms_are_answered_alike(
    server: Running, source: bytes, reference: bytes, kind: str
) -> None:
    options = {"method": "mkl+knn", "topk": 2, "format": kind}
    form = convert(server, [source, reference], **options)
    assert form.headers["Content-Type"] == f"audio/{kind}"
    assert f'filename="converted.{kind}"' in form.headers["Content-Disposition"]
    body = {"source": base64_of(source), "references": [base64_of(reference)]}
    answer = post(server, "/v1/convert", body | options).json()
    file = base64.b64decode(answer.pop("audio"), validate=True)
    assert file[:4] == {"wav": b"RIFF", "flac": b"fLaC"}[kind]
    assert file == form.content
    assert answer == options | {"sample_rate": 16_000, "seconds": 1.3, "weights": "untrained"}


def test_flac_holds_the_samples_of_wav(server: Running, source: bytes, reference: bytes) -> None:
    files = [source, reference]
    wav, flac = (convert(server, files, format=kind).content for kind in ("wav", "flac"))
    # libsndfile rounds the one and cuts the other.
    assert np.abs(samples_of(wav)[0] - samples_of(flac)[0]).max() <= 1 / 2**15
    assert len(flac) < len(wav)


def test_a_known_reference_changes_nothing(server: Running, source: bytes) -> None:
    references = [audio_file(spoken(seed, 1.7)) for seed in (20, 21)]
    other = audio_file(spoken(22, 1.1))
    # As features alone, then with an embedding, then from memory in both ways.
    for method in ("knn", "knn-eta"):
        new = convert(server, [source, *references], method=method).content
        convert(server, [other, references[1]], method="knn-eta")
        again = convert(server, [source, *references], method=method).content
        assert new == again


def test_requests_at_once_are_answered_as_alone(server: Running) -> None:
    files = [[audio_file(spoken(2 * n + m, 0.9 + n / 10)) for m in (0, 1)] for n in range(8)]
    alone = [convert(server, each).content for each in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: convert(server, each).content, files))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, samples_of(other)[0])


def test_verification_is_that_of_the_verifier(
    server: Running, full: Path, tmp_path: Path, source: bytes, reference: bytes
) -> None:
    verifier = Verifier.from_pretrained(full / "verifier")
    for one, other in ((source, reference), (source, source)):
        decision = verifier.score(as_read(one, tmp_path), as_read(other, tmp_path))
        form = post(server, "/v1/verify", files={"one": one, "other": other}).json()
        body = {"one": base64_of(one), "other": base64_of(other)}
        answer = post(server, "/v1/verify", body).json()
        assert form == answer
        assert answer.pop("score") == pytest.approx(decision.score, abs=1e-5)
        assert answer == {
            "same_speaker": decision.same_speaker,
            "unit": decision.unit,
            "threshold": decision.threshold,
            "system": "cosine",
            "trials": json.loads(json.dumps(dict(verifier.trials))),
            "weights": "published",
        }
    assert decision.same_speaker


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2)])
def test_separation_is_that_of_the_command(
    server: Running, full: Path, tmp_path: Path, rate: int, channels: int
) -> None:
    mixture = np.stack([spoken(seed, 1.21, rate) for seed in range(channels)], axis=1)
    sent = audio_file(mixture + spoken(9, 1.21, rate)[:, None], rate)
    (tmp_path / "mixture.wav").write_bytes(sent)
    _, network = load_separator(full / "separator")
    separate_file(network, tmp_path / "mixture.wav", tmp_path / "sources")
    files = [path.read_bytes() for path in sorted((tmp_path / "sources").glob("*.wav"))]
    form = post(server, "/v1/separate", files={"mixture": sent})
    assert form.headers["Content-Type"] == "application/zip"
    assert form.headers["X-Etaflow-Weights"] == "untrained"
    with zipfile.ZipFile(io.BytesIO(form.content)) as packed:
        names = packed.namelist()
        unpacked = [packed.read(name) for name in names]
    assert names == ["source1.wav", "source2.wav"]
    answer = post(server, "/v1/separate", {"mixture": base64_of(sent)}).json()
    assert [base64.b64decode(each) for each in answer.pop("sources")] == unpacked
    seconds = len(mixture) / rate
    assert answer == {"sample_rate": rate, "seconds": seconds, "weights": "untrained"}
    for ours, theirs in zip(unpacked, files, strict=True):
        assert int.from_bytes(ours[20:22], "little") == 3  # 32-bit float
        (made, made_rate), (expected, _) = samples_of(ours), samples_of(theirs)
        assert made_rate == rate
        assert made.shape == expected.shape == (len(mixture),)
        assert np.abs(made - expected).max() <= NOISE * np.abs(expected).max()


def test_analysis_is_that_of_the_library(
    server: Running, converter: etaflow.VoiceConverter, tmp_path: Path, reference: bytes
) -> None:
    measures = analyze(as_read(reference, tmp_path), converter).measures()
    expected = json.loads(json.dumps(measures))
    for answer in (
        post(server, "/v1/analyze", files={"recording": reference}).json(),
        post(server, "/v1/analyze", {"recording": base64_of(reference)}).json(),
    ):
        assert answer.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert answer[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
            else:
                assert answer[name] == value, name


def test_health_says_what_is_served(server: Running) -> None:
    answer = server.health()
    assert answer.status_code == 200
    facts = answer.json()
    assert len(facts.pop("methods")) == 13
    assert facts == {
        "status": "ok",
        "version": etaflow.__version__,
        "run": "small",
        "tasks": {
            "convert": "untrained",
            "analyze": "untrained",
            "verify": "published",
            "separate": "untrained",
        },
        "method": "knn-eta-source",
        "limits": {"max_payload_mb": 16.0, "max_seconds": 60.0, "max_references": 10},
    }


BODIES = {
    "/predict": ({"audio1", "audio2"}, None),
    "/v1/convert": (
        {"source", "references", "method", "topk", "format"},
        {"source", "references", "method", "topk", "format"},
    ),
    "/v1/analyze": ({"recording"}, {"recording"}),
    "/v1/verify": ({"one", "other"}, {"one", "other"}),
    "/v1/separate": ({"mixture"}, {"mixture"}),
}


def test_the_documentation_has_each_route_with_bodies_and_examples(server: Running) -> None:
    document = requests.get(f"{server.url}/openapi.json", timeout=60).json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["version"] == etaflow.__version__
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    assert BODIES.keys() <= posts
    assert "get" in document["paths"]["/v1/health"]
    assert "get" in document["paths"]["/metrics"]
    for path, (names, form) in BODIES.items():
        operation = document["paths"][path]["post"]
        content = operation["requestBody"]["content"]
        schema = content["application/json"]["schema"]
        assert schema["properties"].keys() == names
        assert "UklGR" in json.dumps(schema), path  # an example: the beginning of a WAV file
        if form is None:
            assert "multipart/form-data" not in content
        else:
            assert content["multipart/form-data"]["schema"]["properties"].keys() == form
        assert {"200", "400", "401", "404", "408", "413", "422", "429"} <= operation[
            "responses"
        ].keys()
    for place in references_of(document):
        assert place.startswith("#/")
        found = document
        for part in place[2:].split("/"):
            found = found[part]  # a reference to nothing is a KeyError
    assert requests.get(f"{server.url}/docs", timeout=60).status_code == 200


def references_of(part: Any) -> Iterator[str]:
    """The `$ref`s of a document."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references_of(value)
    elif isinstance(part, list):
        for each in part:
            yield from references_of(each)


def test_metrics_count_what_was_asked(server: Running, source: bytes, reference: bytes) -> None:
    before = counts(server)
    convert(server, [source, reference])
    convert(server, [source], method="copy")
    post(server, "/v1/analyze", files={"recording": source})
    for route, body, status in (
        ("/predict", {"audio1": "!", "audio2": "!"}, 422),
        ("/v1/convert", {"source": 3}, 422),
        ("/v1/separate", {"mixture": base64_of(b"no audio at all")}, 422),
    ):
        answer = requests.post(f"{server.url}{route}", json=body, timeout=60)
        assert answer.status_code == status
    answer = requests.post(f"{server.url}/v1/verify", data=b"{", timeout=60)
    assert answer.status_code == 400
    after = counts(server)
    changed = {
        name: value - before.get(name, 0.0)
        for name, value in after.items()
        if value != before.get(name, 0.0) and "seconds" not in name
    }
    assert changed == {
        "etaflow_requests_total{status=200,task=convert}": 2,
        "etaflow_requests_total{status=422,task=convert}": 2,
        "etaflow_failures_total{task=convert}": 2,
        "etaflow_requests_total{status=200,task=analyze}": 1,
        "etaflow_requests_total{status=400,task=verify}": 1,
        "etaflow_failures_total{task=verify}": 1,
        "etaflow_requests_total{status=422,task=separate}": 1,
        "etaflow_failures_total{task=separate}": 1,
    }
    asked = [name for name in after if name.startswith("etaflow_request_seconds_count")]
    timed = {name: after[name] - before.get(name, 0.0) for name in asked}
    assert timed == {
        "etaflow_request_seconds_count{task=convert}": 4,
        "etaflow_request_seconds_count{task=analyze}": 1,
        "etaflow_request_seconds_count{task=verify}": 1,
        "etaflow_request_seconds_count{task=separate}": 1,
    }
    assert after["etaflow_queue"] == 0
    assert after["etaflow_worker_restarts_total"] == 0

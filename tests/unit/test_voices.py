import re

import numpy as np
import pytest
import torch
import yaml

from etaflow.eta import EtaModel
from etaflow.knn import match
from etaflow.mappings import fit_linear, fit_transport
from etaflow.methods import METHOD, METHOD_WORDS, ConversionError, Method, parse_method
from etaflow.store import unit_rows
from etaflow.voices import Voice, mean_embedding
from tests.workflow_tools import ROOT

DIM = 6


@pytest.fixture
def eta() -> EtaModel:
    random = np.random.default_rng(0)
    return EtaModel(
        random.normal(size=(4, DIM)), random.normal(size=DIM), random.normal(size=DIM), None, {}
    )


def frames(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def converted(voice: Voice, source: np.ndarray, embedding: np.ndarray | None = None) -> np.ndarray:
    features = torch.from_numpy(source)
    return voice.mapping(features, embedding)(features).numpy()


@pytest.mark.parametrize(
    ("name", "steps", "space"),
    [
        ("copy", (), "raw"),
        ("knn", ("knn",), "raw"),
        ("linear-eta", ("linear",), "eta"),
        ("mkl+knn", ("mkl", "knn"), "raw"),
        ("mkl+knn-eta-source", ("mkl", "knn"), "eta-source"),
    ],
)
def test_names_are_read(name: str, steps: tuple[str, ...], space: str) -> None:
    assert parse_method(name) == Method(name, steps, space)


def test_the_config_allows_the_same_methods_and_recordings() -> None:
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
    allowed = schema["$defs"]["method"]
    assert allowed["description"] == f"original, {METHOD_WORDS}"
    steps = ("copy", "original", "knn", "linear", "mkl", "mvc")
    first = [*steps, *(f"{one}+{other}" for one in steps for other in steps)]
    names = [name + space for name in first for space in ("", "-eta", "-eta-source", "-raw")]
    in_config = {name for name in names if re.search(allowed["pattern"], name)}
    in_library = {name for name in names if METHOD.fullmatch(name)}
    assert in_config == in_library | {"original"}
    assert len(in_library) == 1 + 4 * 3


@pytest.mark.parametrize(
    "name", ["", "mvc", "linear+knn", "knn+mkl", "knn+knn", "copy-eta", "knn-eta-target"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConversionError, match="there are copy, knn, linear, mkl"):
        parse_method(name)


def test_each_step_is_its_own_function() -> None:
    source, references = frames(40, 1), [frames(30, 2), frames(25, 3)]
    query, pool = torch.from_numpy(source), torch.from_numpy(np.concatenate(references))
    linear, transport = fit_linear(query, pool), fit_transport(query, pool)
    expected = {
        "knn": match(query, pool, topk=3),
        "linear": linear(query),
        "mkl": transport(query),
        "mkl+knn": match(transport(query), pool, topk=3),
    }
    for name, mapped in expected.items():
        voice = Voice(parse_method(name), references, topk=3)
        np.testing.assert_allclose(converted(voice, source), mapped.numpy(), atol=1e-5)
    np.testing.assert_array_equal(converted(Voice(parse_method("copy")), source), source)


def test_a_map_goes_on_for_frames_that_it_was_not_fitted_on() -> None:
    source = frames(60, 1)
    mapping = Voice(parse_method("mkl"), [frames(50, 2)]).mapping(torch.from_numpy(source[:40]))
    later = torch.from_numpy(source[40:])
    halves = torch.cat([mapping(later[:7]), mapping(later[7:])])
    torch.testing.assert_close(halves, mapping(later))


def test_eta_on_both_sides_gives_the_targets_component_back(eta: EtaModel) -> None:
    random = np.random.default_rng(1)
    content = frames(9, 4)
    speaker, target = random.normal(size=(2, 4))
    source = (content + eta.speaker_component(speaker)).astype(np.float32)
    reference = (content[::-1] + eta.speaker_component(target)).astype(np.float32)
    # The same content in another voice: each frame finds its counterpart and only that.
    voice = Voice(parse_method("knn-eta"), [reference], target[None], eta, topk=1)
    np.testing.assert_allclose(converted(voice, source, speaker), reference[::-1], atol=1e-4)
    # A vocoder of eta features gets just those.
    voice = Voice(parse_method("knn-eta"), [reference], target[None], eta, topk=1, keep_eta=True)
    np.testing.assert_allclose(converted(voice, source, speaker), content, atol=1e-4)


def test_eta_source_is_matched_as_an_average_speaker(eta: EtaModel) -> None:
    content, speaker = frames(9, 5), np.random.default_rng(2).normal(size=4)
    pool = (content[::-1] + eta.mean_component).astype(np.float32)
    source = (content + eta.speaker_component(speaker)).astype(np.float32)
    voice = Voice(parse_method("knn-eta-source"), [pool], None, eta, topk=1)
    np.testing.assert_allclose(converted(voice, source, speaker), pool[::-1], atol=1e-5)


def test_what_is_missing_is_named(eta: EtaModel) -> None:
    source, references = torch.from_numpy(frames(5, 0)), [frames(3, 1)]
    with pytest.raises(ConversionError, match="knn-eta needs an Eta model"):
        Voice(parse_method("knn-eta"), references)
    with pytest.raises(ConversionError, match="knn-eta needs the references' embeddings"):
        Voice(parse_method("knn-eta"), references, None, eta)
    with pytest.raises(ConversionError, match="knn needs a reference"):
        Voice(parse_method("knn"))
    with pytest.raises(ConversionError, match="needs the source's embedding"):
        Voice(parse_method("knn-eta-source"), references, None, eta, topk=1).mapping(source)
    with pytest.raises(ValueError, match="4 neighbours asked of a pool of 3 frames"):
        converted(Voice(parse_method("knn"), references), source.numpy())


def test_the_mean_of_embeddings_has_their_length() -> None:
    vectors = np.array([[3.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(mean_embedding(vectors), 4 / np.sqrt(2) * np.ones(2))
    np.testing.assert_allclose(mean_embedding(vectors[:1]), vectors[0])
    np.testing.assert_allclose(unit_rows(mean_embedding(vectors)[None])[0], np.sqrt([0.5, 0.5]))

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from etaflow import knn
from etaflow.knn import MatchError, Pool, can_prematch, match, prematch


def cosine_distance(query: Tensor, pool: Tensor) -> Tensor:
    """kNN-VC's `fast_cosine_dist` (matcher.py), by cdist."""
    query_norm, pool_norm = query.norm(dim=-1), pool.norm(dim=-1)
    product = -(torch.cdist(query[None], pool[None], p=2)[0] ** 2)
    product = (product + query_norm[:, None] ** 2 + pool_norm[None] ** 2) / 2
    return 1 - product / (query_norm[:, None] * pool_norm[None])


def assert_nearest(similarity: Tensor, index: Tensor, distance: Tensor) -> None:
    """The indices are distinct and as near as the nearest, up to what float32 tells apart."""
    topk = index.shape[1]
    assert all(len(set(row)) == topk for row in index.tolist())
    best = distance.topk(topk, largest=False).values
    torch.testing.assert_close(distance.gather(1, index), best, rtol=0, atol=2e-6)
    torch.testing.assert_close(similarity.double(), 1 - best, rtol=0, atol=2e-6)


@st.composite
def hard_frames(draw: st.DrawFn, fewest: int) -> Tensor:
    """Frames (N, 8) that are alike, equal, of very different length, or all on one side."""
    size, seed = draw(st.integers(fewest, 60)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(size, 8, generator=generator)
    frames += draw(st.sampled_from([0.0, 5.0, 100.0]))  # a high mean: all cosines near 1
    if draw(st.booleans()):
        near = torch.randint(size, (size,), generator=generator)
        frames = frames[near] + draw(st.sampled_from([0.0, 1e-3])) * frames
    return frames * 10 ** (torch.rand(size, 1, generator=generator) * draw(st.integers(0, 6)) - 3)


@settings(deadline=None, max_examples=50)  # oneDNN compiles for each new shape
@given(hard_frames(1), hard_frames(4), st.integers(1, 4), st.sampled_from([7, 16, 64]))
def test_neighbours_are_those_of_the_plain_distance(
    query: Tensor, frames: Tensor, topk: int, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "BLOCK", block)
        found = Pool(frames).neighbours(query, topk)
    assert_nearest(*found, cosine_distance(query.double(), frames.double()))


@settings(deadline=None, max_examples=50)  # oneDNN compiles for each new shape
@given(hard_frames(12), st.data(), st.integers(1, 4), st.sampled_from([7, 16, 64]))
def test_neighbours_elsewhere_are_those_of_the_loop_over_utterances(
    frames: Tensor, data: st.DataObject, topk: int, block: int
) -> None:
    cuts = data.draw(st.lists(st.integers(4, len(frames) - 4), min_size=1, max_size=5))
    stops = [*sorted(cuts), len(frames)]
    lengths = np.diff([0, *stops]).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "BLOCK", block)
        similarity, index = Pool(frames).neighbours_elsewhere(lengths, topk)
    for stop, length in zip(stops, lengths, strict=True):
        own = slice(stop - length, stop)
        distance = cosine_distance(frames[own].double(), frames.double())
        distance[:, own] = torch.inf
        assert_nearest(similarity[own], index[own], distance)


def speech_like(size: int, dim: int) -> Tensor:
    """Frames of a few phones around a common mean, as SSL features are."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dim + 1) ** -0.5
    phones = torch.randn(40, dim, generator=generator) * scale
    phone = torch.randint(40, (size // 8 + 1,), generator=generator).repeat_interleave(8)[:size]
    return 1 + phones[phone] + 0.7 * torch.randn(size, dim, generator=generator) * scale


def test_prematch_equals_the_published_loop() -> None:
    frames = speech_like(2600, 64)  # more than a block
    lengths = [300, 1, 899, 0, 1100, 300]
    utterances = list(frames.split(lengths))
    rebuilt = list(prematch([utterance.numpy() for utterance in utterances], topk=4))
    for index, query in enumerate(utterances):
        pool = torch.cat(utterances[:index] + utterances[index + 1 :])
        best = cosine_distance(query.double(), pool.double()).topk(k=5, largest=False, dim=-1)
        expected = pool[best.indices[:, :4]].mean(dim=1).numpy()
        clear = (best.values[:, 4] - best.values[:, 3] > 1e-6).numpy()
        assert rebuilt[index].shape == expected.shape
        assert clear.sum() >= 0.99 * len(query)
        np.testing.assert_allclose(rebuilt[index][clear], expected[clear], rtol=1e-5, atol=1e-5)


def test_matching_does_not_depend_on_the_length_of_frames() -> None:
    frames = speech_like(300, 16)
    query, pool = frames[:100], frames[100:]
    scale = 10 ** torch.linspace(-6, 6, 200)[:, None]
    expected = match(query, pool)
    torch.testing.assert_close(match(1e5 * query, scale * pool, values=pool), expected)


def test_half_precision_frames_match_as_the_same_numbers_in_float32() -> None:
    half = speech_like(3000, 64).half()
    made = match(half[:200], half[200:])
    assert made.dtype == torch.float32
    assert torch.equal(made, match(half[:200].float(), half[200:].float()))


def test_a_frame_of_zeros_is_similar_to_none() -> None:
    pool = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1e-3]])
    similarity, index = Pool(pool).neighbours(torch.tensor([[2.0, 0.0]]), 3)
    assert index.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(similarity.numpy(), [[1, 0, -1]], atol=1e-6)
    assert Pool(pool).neighbours(torch.zeros(1, 2), 3)[0].tolist() == [[0, 0, 0]]


def test_values_are_averaged_in_place_of_the_pool() -> None:
    pool = torch.eye(3)
    values = torch.tensor([[10.0], [20.0], [40.0]])
    assert match(torch.tensor([[1.0, 0.9, 0.0]]), pool, values, topk=2).item() == 15.0
    with pytest.raises(MatchError, match="2 values for a pool of 3 frames"):
        Pool(pool, values[:2])


def test_weighting_by_distance_is_that_of_scikit_learn() -> None:
    frames = speech_like(400, 16)
    query, pool, values = frames[:100], frames[100:], torch.arange(600.0).reshape(300, 2)
    reference = KNeighborsRegressor(5, weights="distance", metric="cosine", algorithm="brute")
    expected = reference.fit(pool.double().numpy(), values.numpy()).predict(query.double().numpy())
    made = match(query, pool, values, topk=5, weighting="distance")
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-3)


def test_weighting_by_distance_known_answers() -> None:
    pool = torch.tensor([[0.8, 0.6], [0.6, 0.8], [2.0, 0.0], [7.0, 0.0]])
    values = torch.tensor([[1.0], [4.0], [10.0], [20.0]])
    query = torch.tensor([[3.0, 0.0]])
    # Distances 0.2 and 0.4: weights 2/3 and 1/3.
    made = match(query, pool[:2], values[:2], topk=2, weighting="distance")
    np.testing.assert_allclose(made.item(), 2.0, rtol=1e-5)
    # Two frames at distance 0 share all of the weight.
    assert match(query, pool, values, topk=4, weighting="distance").item() == 15.0
    with pytest.raises(MatchError, match="'gaussian' is none of uniform, distance"):
        match(query, pool, weighting="gaussian")


def test_an_empty_query_gives_no_frames() -> None:
    assert match(torch.empty(0, 3), torch.eye(3), torch.ones(3, 5), topk=2).shape == (0, 5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_frames_that_are_not_finite_are_named(bad: float) -> None:
    frames = torch.ones(9, 4)
    frames[5, 2] = frames[7, 0] = bad
    with pytest.raises(MatchError, match=r"2 of 9 frames of the pool .* the first is frame 5"):
        Pool(frames)
    with pytest.raises(MatchError, match=r"2 of 9 frames of the query .* the first is frame 5"):
        match(frames, torch.ones(9, 4))


def test_sizes_that_do_not_fit_are_errors() -> None:
    with pytest.raises(MatchError, match="4 neighbours asked of a pool of 3 frames"):
        match(torch.ones(2, 3), torch.eye(3), topk=4)
    with pytest.raises(MatchError, match="0 neighbours asked"):
        match(torch.ones(2, 3), torch.eye(3), topk=0)
    with pytest.raises(MatchError, match="query of dimension 2 for a pool of 3"):
        match(torch.ones(2, 2), torch.eye(3), topk=1)
    with pytest.raises(MatchError, match=r"the query is \(3,\)"):
        match(torch.ones(3), torch.eye(3), topk=1)


def test_speakers_that_cannot_be_prematched() -> None:
    for lengths, topk, possible in (
        ([9, 4], 4, True),
        ([3, 3, 2], 4, True),
        ([9], 1, False),
        ([], 1, False),
        ([9, 3], 4, False),
        ([9, 9], 0, False),
    ):
        assert can_prematch(lengths, topk) == possible
    with pytest.raises(MatchError, match=r"0 frames: the longest of 1 utterance\(s\)"):
        list(prematch([np.ones((9, 4), np.float32)]))
    with pytest.raises(MatchError, match="4 neighbours asked of 3 frames"):
        list(prematch([np.ones((9, 4), np.float32), np.ones((3, 4), np.float32)]))


MEMORY = """
import resource, torch
from etaflow.knn import Pool
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
query, pool = torch.rand(3_000, 8), Pool(torch.rand(50_000, 8))
pool.match(query[:2_100])
before = peak()
pool.match(query)
Pool(torch.rand(10_000, 8)).neighbours_elsewhere([100] * 100)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_memory_does_not_grow_with_query_and_pool() -> None:
    # All similarities at once would take 600 MB, and 400 MB of the second pool to itself.
    grown = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, check=True)
    assert int(grown.stdout) < 60_000

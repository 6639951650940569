import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etaflow import knn
from etaflow.knn import MatchError, match, prematch


def plain_match(query: torch.Tensor, pool: torch.Tensor, topk: int) -> torch.Tensor:
    """kNN-VC's cosine distance over all pairs, one query frame at a time."""
    rows = []
    for frame in query:
        distance = 1 - torch.nn.functional.cosine_similarity(frame[None], pool)
        rows.append(pool[distance.topk(topk, largest=False).indices].mean(dim=0))
    return torch.stack(rows)


@given(st.integers(1, 40), st.integers(4, 60), st.integers(1, 4), st.integers(0, 2**31))
def test_match_equals_the_plain_loop(frames: int, size: int, topk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(frames, 8, generator=generator)
    pool = torch.randn(size, 8, generator=generator) * 3
    torch.testing.assert_close(match(query, pool, topk=topk), plain_match(query, pool, topk))


def test_match_does_not_depend_on_the_chunk_or_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, pool = (torch.randn(n, 16, generator=generator) for n in (50, 80))
    whole = match(query, pool)
    monkeypatch.setattr(knn, "QUERY_CHUNK", 7)
    torch.testing.assert_close(match(5 * query, pool), whole)


def test_values_are_averaged_in_place_of_the_pool() -> None:
    pool = torch.eye(3)
    values = torch.tensor([[10.0], [20.0], [40.0]])
    assert match(torch.tensor([[1.0, 0.9, 0.0]]), pool, values, topk=2).item() == 15.0


def test_a_pool_smaller_than_k_is_an_error() -> None:
    with pytest.raises(MatchError, match="4 neighbours asked of a pool of 3 frames"):
        match(torch.ones(2, 3), torch.eye(3), topk=4)


def test_prematch_equals_matching_against_all_other_utterances() -> None:
    generator = np.random.default_rng(0)
    utterances = [generator.normal(size=(n, 8)).astype(np.float32) for n in (5, 1, 30, 12)]
    for index, rebuilt in enumerate(prematch(utterances, topk=3)):
        others = [u for i, u in enumerate(utterances) if i != index]
        expected = plain_match(
            torch.from_numpy(utterances[index]), torch.from_numpy(np.concatenate(others)), 3
        )
        np.testing.assert_allclose(rebuilt, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_prematch_refuses_a_lone_utterance_and_too_short_others() -> None:
    with pytest.raises(MatchError, match="two utterances"):
        prematch([np.ones((9, 4), np.float32)])
    with pytest.raises(MatchError, match="4 neighbours asked of 3 frames"):
        prematch([np.ones((9, 4), np.float32), np.ones((3, 4), np.float32)])

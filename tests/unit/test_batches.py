from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from etaflow.batches import equal_lengths, similar_lengths


def test_batches_are_filled_from_the_longest_down() -> None:
    assert list(similar_lengths([3, 9, 4, 4, 1], 8)) == [[1], [2, 3], [0, 4]]
    assert list(similar_lengths([], 8)) == []


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_every_item_is_in_one_batch_and_padding_counts(lengths: list[int], limit: int) -> None:
    batches = list(similar_lengths(lengths, limit))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= limit
    # No two neighbours could have been one.
    for one, other in pairwise(batches):
        assert max(lengths[i] for i in one) * (len(one) + 1) > limit
        assert min(lengths[i] for i in one) >= max(lengths[i] for i in other)


def test_batches_of_one_length() -> None:
    assert list(equal_lengths([3, 9, 3, 4, 3, 3, 3], 8)) == [[1], [3], [0, 2], [4, 5], [6]]
    assert list(equal_lengths([], 8)) == []


@given(st.lists(st.integers(1, 9)), st.integers(1, 40))
def test_every_item_is_in_one_batch_of_its_length(lengths: list[int], limit: int) -> None:
    batches = list(equal_lengths(lengths, limit))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len({lengths[index] for index in batch}) == 1
        assert len(batch) == 1 or lengths[batch[0]] * len(batch) <= limit
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)

"""Batches of similar or of equal length."""

from collections.abc import Iterator, Sequence


def similar_lengths(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    """Indices of items in batches of similar length, longest first.

    A batch holds at most `max_total` with each item padded to the longest, or a single item. The
    longest come first so that a batch that does not fit in memory fails at once.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_total:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def equal_lengths(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    """Indices of items in batches of exactly one length, longest first.

    A batch holds at most `max_total`, or a single item.
    """
    alike: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        alike.setdefault(length, []).append(index)
    for length in sorted(alike, reverse=True):
        size = max(1, max_total // length)
        for start in range(0, len(alike[length]), size):
            yield alike[length][start : start + size]

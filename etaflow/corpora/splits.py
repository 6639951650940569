"""Train and test sides of a corpus."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from etaflow.corpora.base import Recording


def _rank(seed: int, scope: str, unit: str) -> tuple[bytes, str]:
    key = f"{seed}\0{scope}\0{unit}"
    return hashlib.blake2b(key.encode(), digest_size=8).digest(), unit


def _num_test(units: int, fraction: float) -> int:
    count = round(fraction * units)
    if not 0 < fraction < 1:
        return count
    return min(max(count, 1), units - 1)


def assign_splits(
    recordings: Sequence[Recording], by: str, test_fraction: float, seed: int
) -> list[str]:
    """`train` or `test` for each recording, in order; one that has its own split keeps it.

    The units that are test are those with the smallest hashes of seed and id: the result does not
    depend on the order of the recordings, and a new unit moves at most one other.

    Args:
        recordings: the recordings of a corpus.
        by: `speaker`: whole speakers are test. `session`, `utterance`: some of each speaker's
            sessions or utterances are test.
        test_fraction: share of units that are test, 0 to 1, rounded to whole units; strictly
            between 0 and 1 both sides get at least one, and a single unit is train.
        seed: another seed, another choice.

    Raises:
        ValueError: `by` or `test_fraction` is none of the above.
    """
    if by not in ("speaker", "session", "utterance"):
        raise ValueError(f"split by {by!r}: allowed are speaker, session, utterance")
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction of {test_fraction} is outside 0 to 1")

    def locate(recording: Recording) -> tuple[str, str]:
        if by == "speaker":
            return "", recording.speaker_id
        unit = recording.session_id if by == "session" else recording.utterance_id
        return recording.speaker_id, unit

    scopes: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        if recording.split is None:
            scope, unit = locate(recording)
            scopes[scope].add(unit)
    test = {
        (scope, unit)
        for scope, units in scopes.items()
        for unit in sorted(units, key=lambda unit: _rank(seed, scope, unit))[
            : _num_test(len(units), test_fraction)
        ]
    }
    return [
        recording.split or ("test" if locate(recording) in test else "train")
        for recording in recordings
    ]

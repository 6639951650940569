"""Trials drawn from a corpus, balanced over its speakers."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.trials.table import COLUMNS, TrialsError

MOST = 50_000_000  # trials of a kind; all pairs of a large corpus would be billions
Integers = npt.NDArray[np.int64]


def generate_trials(
    table: pd.DataFrame,
    targets: int | None,
    nontargets: int | None,
    seed: int = 0,
    across_sessions: bool = True,
) -> pd.DataFrame:
    """Draw trials; each unordered pair of utterances stands there at most once.

    Every speaker gets the same share of the target trials, and every pair of speakers of the
    non-target trials, as far as their pairs of utterances last; what is left over by division goes
    to some of them by chance. Memory and time grow with the trials asked for and with the
    utterances, not with their pairs.

    Args:
        table: rows of a manifest to draw from.
        targets: how many target trials; None for all pairs that there are.
        nontargets: likewise; either number may change without the other trials changing.
        seed: of the draw.
        across_sessions: take the two utterances of a target trial from different sessions, for
            speakers who have several.

    Returns:
        The columns `enrolment`, `test`, `target`, in order of the ids; `enrolment` < `test`.

    Raises:
        TrialsError: there are fewer pairs than asked for, or more than 50 million of a kind.
    """
    table = table.sort_values("utterance_id", ignore_index=True)
    _, owner = np.unique(table["speaker_id"].to_numpy(str), return_inverse=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    if table.empty:
        members = []
    sessions, _ = pd.factorize(table["session_id"])
    speakers = [_Partners.of(own, sessions if across_sessions else None) for own in members]
    same = _target_pairs(speakers, targets, np.random.default_rng([seed, 1]))
    other = _nontarget_pairs(members, nontargets, np.random.default_rng([seed, 0]))
    pairs = np.sort(np.concatenate([same, other]), axis=1)
    target = np.repeat([1, 0], [len(same), len(other)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ids = table["utterance_id"].to_numpy()
    enrolment, test = ids[pairs[order]].T
    return pd.DataFrame(dict(zip(COLUMNS, (enrolment, test, target[order]), strict=True)))


class _Partners:
    """The pairs of a speaker's utterances, by number, without a list of them."""

    def __init__(self, own: Integers, ends: Integers) -> None:
        # Utterance k, in this order, makes pairs with all from ends[k] on.
        self.own, self.ends = own, ends
        self.last = np.cumsum(len(own) - ends)
        self.count = int(self.last[-1])

    @classmethod
    def of(cls, own: Integers, sessions: Integers | None) -> "_Partners":
        if sessions is not None:
            order = np.argsort(sessions[own], kind="stable")
            _, sizes = np.unique(sessions[own], return_counts=True)
            if len(sizes) > 1:
                return cls(own[order], np.repeat(np.cumsum(sizes), sizes))
        return cls(own, np.arange(1, len(own) + 1))

    def pairs(self, numbers: Integers) -> Integers:
        """The utterances (K, 2) of pairs with these numbers (K,), 0 to `count` - 1."""
        first = np.searchsorted(self.last, numbers, side="right")
        second = len(self.own) - (self.last[first] - numbers)
        return self.own[np.stack([first, second], axis=1)]


def _checked_count(asked: int | None, there_are: int, kind: str, lack: str) -> int:
    if there_are == 0:
        raise TrialsError(f"no {kind} trial can be made: {lack}")
    count = there_are if asked is None else asked
    if count > there_are:
        raise TrialsError(f"{count} {kind} trials asked for, there are {there_are}")
    if count < 1:
        raise TrialsError(f"{count} {kind} trials asked for: error rates need one or more")
    if count > MOST:
        raise TrialsError(
            f"there are {there_are} {kind} trials, and {count} are too many to score: "
            f"ask for {MOST} or fewer"
        )
    return count


def _shares(available: Integers, count: int, generator: np.random.Generator) -> Integers:
    """How many of each group (G,), summing to `count`: the same of each as far as they last."""
    # Groups too small for a share give all they have, smallest first; the others divide the rest.
    order = np.argsort(available, kind="stable")
    rising = available[order]
    taken = np.cumsum(rising) - rising
    share = (count - taken) // np.arange(len(available), 0, -1)
    level = int(share[np.argmax(share < rising)]) if (share < rising).any() else int(rising[-1])
    shares = np.minimum(available, level)
    larger = np.flatnonzero(available > level)
    shares[generator.choice(larger, count - shares.sum(), replace=False)] += 1
    return shares


def _drawn(generator: np.random.Generator, size: int, count: int) -> Integers:
    """Distinct numbers (count,) from 0 to `size` - 1, not listing them all where few are drawn."""
    if count == size:
        return np.arange(size)
    return generator.choice(size, count, replace=False, shuffle=False)


def _target_pairs(
    speakers: list[_Partners], asked: int | None, generator: np.random.Generator
) -> Integers:
    available = np.array([speaker.count for speaker in speakers], np.int64)
    lack = "no speaker has two utterances"
    count = _checked_count(asked, int(available.sum()), "target", lack)
    shares = _shares(available, count, generator)
    return np.concatenate(
        [
            speaker.pairs(_drawn(generator, speaker.count, int(share)))
            for speaker, share in zip(speakers, shares, strict=True)
            if share
        ]
    )


def _nontarget_pairs(
    members: list[Integers], asked: int | None, generator: np.random.Generator
) -> Integers:
    sizes = np.array([len(own) for own in members], np.int64)
    there_are = int((sizes.sum() ** 2 - (sizes**2).sum()) // 2)
    count = _checked_count(asked, there_are, "non-target", "there are not two speakers")
    couples = _Partners.of(np.arange(len(members)), None)
    if count < couples.count:
        one, other = couples.pairs(_drawn(generator, couples.count, count)).T
        couple, number = np.arange(count), generator.integers(sizes[one] * sizes[other])
    else:
        one, other = couples.pairs(np.arange(couples.count)).T
        available = sizes[one] * sizes[other]
        shares = _shares(available, count, generator)
        couple = np.repeat(np.arange(couples.count), shares)
        number = np.concatenate(
            [
                _drawn(generator, size, share)
                for size, share in zip(available.tolist(), shares.tolist(), strict=True)
                if share
            ]
        )
    one, other = one[couple], other[couple]
    utterances, start = np.concatenate(members), np.cumsum(sizes) - sizes
    first, second = np.divmod(number, sizes[other])
    return np.stack([utterances[start[one] + first], utterances[start[other] + second]], axis=1)

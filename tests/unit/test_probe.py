import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from etaflow.probe import ProbeError, draw_balanced, linear_probe, segment_frames


def utterances_of(classes: int, each: int, items: int) -> tuple[list[str], list[str]]:
    """Labels and utterances of `items` items in each of `each` utterances a class."""
    rows = [(f"c{c}", f"c{c}-u{u}") for c in range(classes) for u in range(each)]
    return [label for label, _ in rows for _ in range(items)], [
        name for _, name in rows for _ in range(items)
    ]


def test_clusters_are_told_apart_without_a_mistake() -> None:
    labels, names = utterances_of(3, 6, 4)
    centres = np.eye(3)[[int(label[1]) for label in labels]]
    noise = np.random.default_rng(0).normal(0, 0.05, centres.shape)
    # One column in other units: the probe standardises.
    found = linear_probe((centres + noise) * [1, 1e6, 1e-6] + [0, 1e7, 0], labels, names)
    assert (found.accuracy, found.low, found.high) == (1, 1, 1)
    assert (found.items, found.utterances, found.classes) == (72, 18, 3)
    assert found.chance == found.majority == pytest.approx(1 / 3)


def test_features_of_nothing_are_at_chance() -> None:
    labels, names = utterances_of(4, 30, 3)
    features = np.random.default_rng(1).normal(size=(len(labels), 6))
    found = linear_probe(features, labels, names)
    assert found.low < 0.25 < found.high
    assert 0 < found.low < found.accuracy < found.high < 0.5


def test_an_utterance_is_never_in_both_training_and_test() -> None:
    labels, names = utterances_of(4, 20, 10)
    generator = np.random.default_rng(2)
    place = dict(zip(dict.fromkeys(names), generator.normal(size=(80, 100)), strict=True))
    features = np.stack([place[name] for name in names])
    features += generator.normal(0, 0.01, features.shape)
    leaking = cross_val_score(
        LinearSVC(random_state=0), features, labels, cv=StratifiedKFold(5, shuffle=True)
    )
    assert leaking.mean() > 0.95
    found = linear_probe(features, labels, names)
    assert found.low < 0.25 < found.high
    assert found.accuracy < 0.45


def test_the_interval_counts_utterances_and_not_items() -> None:
    labels, names = utterances_of(2, 20, 50)
    # In half of the utterances all items look like the other class.
    odd = np.array([int(name.split("u")[1]) % 2 for name in names])
    shown = np.array([label == "c1" for label in labels]) ^ (odd == 1)
    features = shown[:, None] + np.random.default_rng(3).normal(0, 0.01, (len(labels), 2))
    found = linear_probe(features, labels, names)
    assert found.high - found.low > 0.2  # sqrt(0.25 / 2000) would give 0.04


def test_equal_seeds_give_equal_probes_and_the_majority_is_counted() -> None:
    labels, names = utterances_of(2, 6, 2)
    labels, names = [*labels, "c0", "c0"], [*names, "c0-u0", "c0-u1"]
    features = np.random.default_rng(4).normal(size=(len(labels), 3))
    found = linear_probe(features, labels, names, seed=7)
    assert found == linear_probe(features, labels, names, seed=7)
    assert found != linear_probe(features, labels, names, seed=8)
    assert (found.majority, found.chance) == (14 / 26, 0.5)


def test_what_a_probe_cannot_be_made_of_is_said() -> None:
    with pytest.raises(ProbeError, match=r"1 class\(es\) to tell apart: a probe needs at least 2"):
        linear_probe(np.zeros((3, 1)), ["a"] * 3, list("uvw"))
    with pytest.raises(ProbeError, match=r"^0 class"):
        linear_probe(np.zeros((0, 1)), [], [])
    labels, names = utterances_of(2, 5, 9)
    names = ["c1-u1" if name == "c1-u0" else name for name in names]
    with pytest.raises(ProbeError, match=r"'c1' is in 4 utterance\(s\), fewer than the 5 folds"):
        linear_probe(np.zeros((90, 1)), labels, names)


def test_the_draw_takes_as_many_utterances_of_each_class_as_the_smallest_has() -> None:
    # Utterances hold several classes: a in 6, b in 3 of them (twice in one), c in 1.
    pairs = [("a", n) for n in "uvwxyz"] + [("b", n) for n in "uuvw"] + [("c", "u")]
    labels, names = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    chosen, rare = draw_balanced(labels, names, folds=2, limit=10)
    assert rare == ["c"]
    drawn = [pairs[item] for item in chosen]
    assert drawn[-4:] == [("b", n) for n in "uuvw"]
    assert len({pair for pair in drawn if pair[0] == "a"}) == len(drawn) - 4 == 3
    assert list(chosen) == sorted(chosen)
    limited, _ = draw_balanced(labels, names, folds=2, limit=2)
    assert [len({pairs[i][1] for i in limited if labels[i] == label}) for label in "ab"] == [2, 2]
    draws = {tuple(draw_balanced(labels, names, 2, 10, seed)[0]) for seed in range(20)}
    assert len(draws) > 5
    assert draw_balanced(labels, names, folds=7, limit=10)[0].tolist() == []


@given(start=st.integers(0, 120), length=st.integers(0, 40), num_frames=st.integers(0, 60))
def test_a_segment_has_the_frames_whose_centres_it_holds(
    start: int, length: int, num_frames: int
) -> None:
    seconds = np.array([start]) / 100, np.array([start + length]) / 100
    first, last = segment_frames(*seconds, num_frames, 16_000, 320)
    stop = start + length
    expected = [t for t in range(num_frames) if start * 160 <= 320 * t + 200 < stop * 160]
    assert list(range(first[0], last[0])) == expected

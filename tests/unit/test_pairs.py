from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etaflow.manifest import write_table
from etaflow.pairs import (
    PairError,
    choose_references,
    cross_pairs,
    read_pairs,
    recordings_of,
    sample_pairs,
)


def manifest(speakers: dict[str, int]) -> pd.DataFrame:
    rows = [
        (f"{speaker}-{index}", speaker, "test")
        for speaker, count in speakers.items()
        for index in range(count)
    ]
    return pd.DataFrame(rows, columns=["utterance_id", "speaker_id", "split"])


CORPUS = manifest({"a": 3, "b": 2, "c": 1})


def rows(pairs: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    return list(pairs[list(columns)].itertuples(index=False, name=None))


def test_sampled_pairs_are_every_other_speaker_and_stay_when_one_joins() -> None:
    pairs = sample_pairs(manifest({"a": 5, "b": 2}), 3, seed=0)
    assert (pairs["source_speaker"] != pairs["target_speaker"]).all()
    assert pairs["source_speaker"].value_counts().to_dict() == {"a": 3, "b": 2}
    more = sample_pairs(manifest({"a": 5, "b": 2, "c": 4}), 3, seed=0)
    assert set(pairs["utterance_id"]) <= set(more["utterance_id"])
    assert not pairs.equals(sample_pairs(manifest({"a": 5, "b": 2}), 3, seed=1))
    with pytest.raises(PairError, match=r"1 speaker\(s\), conversion needs two"):
        sample_pairs(manifest({"a": 5}), 3, seed=0)


def test_crossed_pairs_leave_a_sources_own_speaker_out() -> None:
    pairs = cross_pairs(CORPUS, ["a-0", "b-1"], ["b", "c"])
    assert rows(pairs, "utterance_id", "source_speaker", "target_speaker") == [
        ("a-0-to-b", "a", "b"),
        ("a-0-to-c", "a", "c"),
        ("b-1-to-c", "b", "c"),
    ]
    with pytest.raises(PairError, match=r"source utterance\(s\) not in the manifest: a-9"):
        cross_pairs(CORPUS, ["a-9"], ["b"])
    with pytest.raises(PairError, match=r"target speaker\(s\) not in the manifest: d, e"):
        cross_pairs(CORPUS, ["a-0"], ["e", "d"])
    with pytest.raises(PairError, match="no pair is left"):
        cross_pairs(CORPUS, ["a-0"], ["a"])


def table(folder: Path, columns: list[str], *lines: tuple[str, ...]) -> Path:
    path = folder / "pairs.tsv"
    write_table(pd.DataFrame(lines, columns=columns), path)
    return path


def test_a_table_may_name_targets_or_references_or_both(tmp_path: Path) -> None:
    path = table(tmp_path, ["source_id", "target_speaker"], ("a-0", "b"), ("b-0", "c"))
    assert rows(read_pairs(path, CORPUS), "utterance_id", "references") == [
        ("a-0-to-b", ""),
        ("b-0-to-c", ""),
    ]
    path = table(tmp_path, ["source_id", "references"], ("c-0", "a-0 a-2"), ("c-0", "b-1"))
    assert rows(read_pairs(path, CORPUS), "target_speaker", "references") == [
        ("a", "a-0 a-2"),
        ("b", "b-1"),
    ]
    columns = ["utterance_id", "source_id", "target_speaker", "references"]
    path = table(tmp_path, columns, ("one", "c-0", "a", ""), ("two", "c-0", "a", "a-1"))
    assert rows(read_pairs(path, CORPUS), *columns) == [
        ("one", "c-0", "a", ""),
        ("two", "c-0", "a", "a-1"),
    ]


@pytest.mark.parametrize(
    ("columns", "line", "message"),
    [
        (["source_id"], ("a-0",), "needs the columns source_id, and target_speaker or references"),
        (["source_id", "target"], ("a-0", "b"), r"unknown column\(s\) target"),
        (["source_id", "target_speaker"], ("a-7", "b"), "not in the manifest: a-7"),
        (["source_id", "target_speaker"], ("a-0", "a"), "source and target are one speaker"),
        (["source_id", "references"], ("a-0", "b-0 c-0"), r"line 2: references of 2 speakers"),
        (["source_id", "references"], ("a-0", "b-9"), r"reference\(s\) not in the manifest: b-9"),
        (["source_id", "references"], ("a-0", ""), "line 2: references of 0 speakers"),
        (["source_id", "references"], ("a-0", "b-0 b-1 b-0"), "line 2: a reference stands twice"),
        (
            ["source_id", "target_speaker", "references"],
            ("a-0", "c", "b-0"),
            "or of another than the target",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(
    tmp_path: Path, columns: list[str], line: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PairError, match=message) as caught:
        read_pairs(table(tmp_path, columns, line), CORPUS)
    assert "pairs.tsv" in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "/a", "../a", "a/../b", "a//b", "a/", "./a"])
def test_a_name_that_is_no_file_name_or_another_way_to_write_one_is_refused(
    tmp_path: Path, name: str
) -> None:
    columns = ["utterance_id", "source_id", "target_speaker"]
    with pytest.raises(PairError, match=f"utterance_id {name!r} is no file name"):
        read_pairs(table(tmp_path, columns, (name, "a-0", "b")), CORPUS)
    kept = read_pairs(table(tmp_path, columns, ("b/a", "a-0", "b")), CORPUS)
    assert rows(kept, "utterance_id") == [("b/a",)]


def test_pairs_of_one_name_and_no_pairs_are_refused(tmp_path: Path) -> None:
    columns = ["source_id", "target_speaker"]
    with pytest.raises(PairError, match="pairs of the same name: a-0-to-b"):
        read_pairs(table(tmp_path, columns, ("a-0", "b"), ("a-0", "b")), CORPUS)
    with pytest.raises(PairError, match="has no pairs"):
        read_pairs(table(tmp_path, columns), CORPUS)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 300), st.integers(0, 99)
)
def test_references_add_up_to_the_limit(lengths: list[int], limit: int, seed: int) -> None:
    chosen = choose_references(lengths, limit, seed, "a")
    assert sum(count for _, count in chosen) == min(limit, sum(lengths))
    assert len({index for index, _ in chosen}) == len(chosen)
    assert all(1 <= count <= lengths[index] for index, count in chosen)
    # Only the last one is cut, and fewer frames are a beginning of more.
    assert all(count == lengths[index] for index, count in chosen[:-1])
    more = choose_references(lengths, limit + 10, seed, "a")
    assert [index for index, _ in chosen] == [index for index, _ in more][: len(chosen)]


def test_all_references_come_in_order_and_targets_have_draws_of_their_own() -> None:
    assert choose_references([4, 9, 2], None, 0, "a") == [(0, 4), (1, 9), (2, 2)]
    orders = {
        tuple(index for index, _ in choose_references([1] * 8, 8, 0, name)) for name in "abcd"
    }
    assert len(orders) == 4


def test_a_speaker_is_known_by_test_utterances_or_else_by_all() -> None:
    corpus = CORPUS.assign(split=["train", "test", "test", "train", "train", "test"])
    corpus = corpus.sort_index(ascending=False).set_index("utterance_id")
    assert recordings_of("a", corpus) == ["a-1", "a-2"]
    assert recordings_of("b", corpus) == ["b-0", "b-1"]

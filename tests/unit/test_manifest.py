"""The manifest: a stable hash, and a table that comes back as it was written."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etaflow.manifest import (
    COLUMNS,
    ManifestError,
    check_manifest,
    read_manifest,
    read_table,
    shard_names,
    shard_of,
    training_utterances,
    write_manifest,
    write_table,
)

# Any text of one line without tabs.
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\0"), max_size=20)
name = line.filter(bool)


def table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (u, speaker, "0", "train", f"audio/{u}.wav", 16_000, 8_000, text, "0000", "00ff")
            for u, speaker, text in rows
        ],
        columns=COLUMNS,
    )


@given(st.lists(st.tuples(name, name, line), min_size=1, max_size=8, unique_by=lambda row: row[0]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    written = table(rows)
    write_manifest(written, tmp_path / "m.tsv")
    expected = written.sort_values("utterance_id", ignore_index=True)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "m.tsv"), expected, check_dtype=False)


@pytest.mark.parametrize(
    "text", ['she said "no"', "'", "NA", "null", "007", "héllo Ωμέγα 你好", "#"]
)
def test_texts_that_other_readers_would_change(tmp_path: Path, text: str) -> None:
    write_manifest(table([(text, text, text)]), tmp_path / "m.tsv")
    row = read_manifest(tmp_path / "m.tsv").iloc[0]
    assert (row.utterance_id, row.speaker_id, row.text) == (text, text, text)


def test_an_empty_manifest_is_a_header(tmp_path: Path) -> None:
    write_manifest(table([]), tmp_path / "m.tsv")
    assert (tmp_path / "m.tsv").read_text() == "\t".join(COLUMNS) + "\n"
    assert len(read_manifest(tmp_path / "m.tsv")) == 0


def test_rows_are_sorted_and_bytes_do_not_depend_on_their_order(tmp_path: Path) -> None:
    rows = [("b", "s", ""), ("a", "s", ""), ("c", "s", "")]
    write_manifest(table(rows), tmp_path / "1.tsv")
    write_manifest(table(rows[::-1]), tmp_path / "2.tsv")
    assert (tmp_path / "1.tsv").read_bytes() == (tmp_path / "2.tsv").read_bytes()
    assert list(read_manifest(tmp_path / "1.tsv").utterance_id) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "s", ""), ("a", "t", "")], "utterance id.*twice.*'a'"),
        ([("", "s", "")], "utterance id is empty"),
        ([("a", "s", "one\ttwo")], "tab or line break in text"),
        ([("a", "s\n", "")], "tab or line break in speaker_id"),
        ([("a\r", "s", "")], "tab or line break in utterance_id"),
    ],
)
def test_what_is_no_manifest_is_refused(
    tmp_path: Path, rows: list[tuple[str, str, str]], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        write_manifest(table(rows), tmp_path / "m.tsv")
    assert not (tmp_path / "m.tsv").exists()


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"missing column.*split, shard"):
        check_manifest(table([("a", "s", "")]).drop(columns=["split", "shard"]))


def test_numbers_of_a_table_and_its_gaps(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"name": ["a", "b"], "value": [1.5, None]}), tmp_path / "t.tsv")
    read = read_table(tmp_path / "t.tsv", numbers=("value",))
    assert read.value[0] == 1.5
    assert pd.isna(read.value[1])
    assert list(read.name) == ["a", "b"]


def test_shards_never_move() -> None:
    # Fixed for ever: another answer would send every speaker of every user to another shard.
    speakers = ["19", "8887", "p225", "Ωμέγα"]
    assert [shard_of(speaker, 64) for speaker in speakers] == ["0058", "0055", "0034", "0011"]
    assert shard_names(3) == ["0000", "0001", "0002"]


@given(st.text(), st.integers(1, 500))
def test_a_shard_is_one_of_its_names(speaker: str, shards: int) -> None:
    try:
        speaker.encode()
    except UnicodeEncodeError:
        return
    assert shard_of(speaker, shards) in shard_names(shards)
    assert shard_of(speaker, 1) == "0000"


def test_shards_are_even() -> None:
    counts = pd.Series([shard_of(str(i), 8) for i in range(4000)]).value_counts()
    assert counts.between(420, 580).all()


def test_a_smaller_draw_of_training_utterances_is_part_of_a_larger_one() -> None:
    table = pd.DataFrame(
        {"utterance_id": [f"u{i:02d}" for i in range(30)], "split": ["train", "test", "train"] * 10}
    )
    train = training_utterances(table)
    assert train == [f"u{i:02d}" for i in range(30) if i % 3 != 1]
    small, large = (training_utterances(table, count, seed=3) for count in (5, 12))
    assert (len(small), len(large)) == (5, 12)
    assert set(small) < set(large) < set(train)
    assert large == sorted(large) != training_utterances(table, 12, seed=4)
    with pytest.raises(ManifestError, match="21 training utterances asked for, there are 20"):
        training_utterances(table, 21)


@pytest.mark.parametrize(
    "text", [b"", b"a\tb\nx\t\xe9\n", b"a\tb\nextra\tx\ty\n", b"a\tb\nx\ty\t\n", b"a\nb\nc\td\n"]
)
def test_a_table_that_would_be_misread_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(text)
    with pytest.raises(ManifestError, match=r"table\.tsv: not a readable table"):
        read_table(path)

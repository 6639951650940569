import time
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.manifest import write_table
from etaflow.trials import TrialsError, generate_trials, read_trials, read_trials_table, speakers_of


def corpus(sizes):
    """A manifest's rows; `sizes` are the recordings of each session of each speaker."""
    return pd.DataFrame(
        [
            {
                "utterance_id": f"s{s}-{session}-{number}",
                "speaker_id": f"s{s}",
                "session_id": str(session),
                "path": f"/audio/s{s}/{session}/{number}.wav",
            }
            for s, sessions in enumerate(sizes)
            for session, count in enumerate(sessions)
            for number in range(count)
        ],
        columns=["utterance_id", "speaker_id", "session_id", "path"],
    )


def counted(table, across_sessions=True):
    """All pairs, one by one: target pairs and non-target pairs, as sets."""
    rows = table.sort_values("utterance_id").to_dict("records")
    same, other = set(), set()
    several = table.groupby("speaker_id")["session_id"].nunique() > 1
    for one, two in combinations(rows, 2):
        pair = one["utterance_id"], two["utterance_id"]
        if one["speaker_id"] != two["speaker_id"]:
            other.add(pair)
        elif (
            not across_sessions
            or not several[one["speaker_id"]]
            or one["session_id"] != two["session_id"]
        ):
            same.add(pair)
    return same, other


def pairs(trials, target):
    chosen = trials[trials["target"] == target]
    return list(zip(chosen["enrolment"], chosen["test"], strict=True))


corpora = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=2, max_size=5).map(
    corpus
)


@given(corpora, st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_trials_are_pairs_of_the_corpus_each_once(table, across, data):
    same, other = counted(table, across)
    if not same:
        with pytest.raises(TrialsError, match="no target trial"):
            generate_trials(table, None, None, across_sessions=across)
        return
    every = generate_trials(table, None, None, across_sessions=across)
    assert set(pairs(every, 1)) == same
    assert set(pairs(every, 0)) == other
    assert len(every) == len(same) + len(other)
    targets, others = data.draw(st.integers(1, len(same))), data.draw(st.integers(1, len(other)))
    some = generate_trials(table, targets, others, data.draw(st.integers(0, 9)), across)
    assert len(pairs(some, 1)) == len(set(pairs(some, 1)) & same) == targets
    assert len(pairs(some, 0)) == len(set(pairs(some, 0)) & other) == others
    assert list(some["enrolment"]) == sorted(some["enrolment"])


@given(corpora, st.data())
@settings(max_examples=60, deadline=None)
def test_shares_are_equal_as_far_as_pairs_last(table, data):
    same, other = counted(table)
    if not same:
        return
    targets, others = data.draw(st.integers(1, len(same))), data.draw(st.integers(1, len(other)))
    trials = generate_trials(table, targets, others)
    for chosen, available in ((pairs(trials, 1), same), (pairs(trials, 0), other)):

        def of_group(listed):
            return pd.Series([tuple(name.split("-")[0] for name in pair) for pair in listed])

        there_are = of_group(sorted(available)).value_counts()
        drawn = of_group(chosen).value_counts().reindex(there_are.index, fill_value=0)
        # Whoever gave less than the most generous one, by more than one, had no more.
        assert (drawn[drawn < drawn.max() - 1] == there_are[drawn < drawn.max() - 1]).all()


def test_speakers_of_one_session_pair_within_it():
    table = corpus([[3], [1, 1]])
    assert pairs(generate_trials(table, None, 1), 1) == [
        ("s0-0-0", "s0-0-1"),
        ("s0-0-0", "s0-0-2"),
        ("s0-0-1", "s0-0-2"),
        ("s1-0-0", "s1-1-0"),
    ]


def test_a_draw_repeats_and_each_kind_has_its_own():
    table = corpus([[4, 4]] * 4)
    first = generate_trials(table, 20, 30, seed=3)
    pd.testing.assert_frame_equal(first, generate_trials(table, 20, 30, seed=3))
    assert pairs(first, 0) == pairs(generate_trials(table, 21, 30, seed=3), 0)
    assert pairs(first, 1) == pairs(generate_trials(table, 20, 31, seed=3), 1)
    assert pairs(first, 1) != pairs(generate_trials(table, 20, 30, seed=4), 1)


@pytest.mark.parametrize(
    ("sizes", "targets", "nontargets", "reason"),
    [
        ([[2], [3]], 5, 1, "5 target trials asked for, there are 4"),
        ([[2], [3]], 1, 7, "7 non-target trials asked for, there are 6"),
        ([[1], [1]], None, None, "no speaker has two utterances"),
        ([[5]], None, None, "not two speakers"),
        ([], None, None, "no speaker has two"),
        ([[2], [3]], 0, 1, "0 target trials"),
        ([[20_000], [5000]], 1, None, "100000000 non-target trials, and 100000000 are too many"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(sizes, targets, nontargets, reason):
    with pytest.raises(TrialsError, match=reason):
        generate_trials(corpus(sizes), targets, nontargets)


def test_few_trials_of_a_large_corpus_take_little_time():
    names = np.char.mod("%06d", np.arange(150_000))
    table = pd.DataFrame(
        {
            "utterance_id": names,
            "speaker_id": np.char.mod("%04d", np.arange(150_000) // 120),
            "session_id": np.char.mod("%05d", np.arange(150_000) // 10),
        }
    )
    start = time.process_time()
    trials = generate_trials(table, 10_000, 20_000)
    assert time.process_time() - start < 4
    assert (trials["target"] == 1).sum() == 10_000


VOXCELEB = pd.DataFrame(
    {
        "utterance_id": ["id1-a-00001", "id1-b-00001", "id2-a-00001", "id2-a-00002"],
        "speaker_id": ["id1", "id1", "id2", "id2"],
        "path": [
            "/data/vox/wav/id1/a/00001.wav",
            "/data/vox/wav/id1/b/00001.wav",
            "/data/vox/wav/id2/a/00001.flac",
            "/data/vox/wav/id2/a/00002.v2.wav",
        ],
    }
)
EXPECTED = [("id1-a-00001", "id1-b-00001", 1), ("id1-b-00001", "id2-a-00001", 0)]


def as_tuples(trials):
    return list(trials[["enrolment", "test", "target"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "text",
    [
        "1 id1/a/00001.wav id1/b/00001.wav\n0 id1/b/00001.wav id2/a/00001.wav\n",
        "id1/a/00001.wav id1/b/00001.wav 1\r\nid1/b/00001.wav id2/a/00001.wav 0\r\n\r\n",
        "1\tid1/a/00001\t/vox/wav/id1/b/00001\n0\t./id1/b/00001.m4a\tid2/a/00001\n",
        "id1-a-00001 id1-b-00001 target\nid1-b-00001 id2-a-00001 nontarget",
        "enrolment\ttest\ttarget\nid1-a-00001\tid1-b-00001\t1\nid1-b-00001\tid2-a-00001\t0\n",
        "1\tid1/a/00001 \tid1/b/00001 \n0 \t id1/b/00001\tid2/a/00001\n",
        "target\tenrolment\ttest\n1\tid1-a-00001\tid1-b-00001\n0\tid1-b-00001\tid2-a-00001\n",
    ],
)
def test_lists_of_all_formats_are_read(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_text(text)
    trials, missing, left_out = read_trials(path, VOXCELEB)
    assert as_tuples(trials) == EXPECTED
    assert (missing, left_out) == ([], 0)


def test_names_with_dots_and_spaces_are_found(tmp_path):
    table = VOXCELEB.assign(path=[p.replace("vox/wav", "my vox") for p in VOXCELEB["path"]])
    path = tmp_path / "list.txt"
    path.write_text("1\tmy vox/id2/a/00001.flac\tmy vox/id2/a/00002.v2\n")
    assert as_tuples(read_trials(path, table)[0]) == [("id2-a-00001", "id2-a-00002", 1)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no trials"),
        ("1 id1/a/00001.wav\n", "line 1: .* is not LABEL NAME NAME"),
        ("0 id1/a/00001.wav 1\n", "line 1: .* is not LABEL"),
        ("a b c\n", "line 1"),
        ("\n1 id1-a-00001 id1-b-00001\nid1-a-00001 id1-b-00001 1\n", "line 3: .* not as the lines"),
        ("1 id1-a-00001 id1-b-00001\n2 id1-a-00001 id1-b-00001\n", "line 2"),
        ("1 id1-a-00001 id1-b-00001\n1 id1-a-00001 a/00001\n", "line 2: a/00001 means 2"),
        ("1 id1-a-00001 id1-b-00001 x\n", "line 1"),
        ("1 id1-a-00001 id1-b-00001\n1 id1-a-00001 id2-a-00001\n", "line 2: label 1.*id1 and id2"),
        ("0 id1-a-00001 id1-b-00001\n", "line 1: label 0.* id1 in the"),
    ],
)
def test_lists_that_are_not_clear_are_refused(tmp_path, text, reason):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(TrialsError, match=reason):
        read_trials(path, VOXCELEB)


def test_a_suffix_tells_two_recordings_apart(tmp_path):
    table = VOXCELEB.assign(path=["/a/1.wav", "/a/1.flac", "/b/1.wav", "/b/2.wav"])
    path = tmp_path / "list.txt"
    path.write_text("1 a/1.wav a/1.flac\n")
    assert as_tuples(read_trials(path, table)[0]) == [EXPECTED[0]]
    path.write_text("1 a/1.wav a/1\n")
    with pytest.raises(TrialsError, match="a/1 means 2 recordings"):
        read_trials(path, table)


def test_a_number_behind_a_dot_is_no_suffix(tmp_path):
    table = VOXCELEB.assign(path=["/a/take.wav", "/a/take.1.wav", "/b/1.wav", "/b/2.wav"])
    path = tmp_path / "list.txt"
    for name in ("a/take.1", "a/take.1.flac"):
        path.write_text(f"1 a/take {name}\n")
        assert as_tuples(read_trials(path, table)[0]) == [EXPECTED[0]]
    path.write_text("1 a/take.1 a/take.2\n")
    with pytest.raises(TrialsError, match=r"not in the manifest: a/take\.2"):
        read_trials(path, table)


def test_missing_recordings_are_named_or_left_out(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(
        "1 id1/a/00001.wav id1/b/00001.wav\n1 id3/a/00001.wav id3/a/00002.wav\n"
        "0 id1/a/00001.wav id3/a/00001.wav\n"
    )
    with pytest.raises(TrialsError, match=r"2 of 4 .* not in the manifest: id3/a/00001.wav, id3/a"):
        read_trials(path, VOXCELEB)
    trials, missing, left_out = read_trials(path, VOXCELEB, missing="exclude")
    assert as_tuples(trials) == EXPECTED[:1]
    assert left_out == 2
    assert missing == ["id3/a/00001.wav", "id3/a/00002.wav"]
    path.write_text("1 id3/a/00001.wav id3/a/00002.wav\n")
    with pytest.raises(TrialsError, match="no trial is left, 2 recording"):
        read_trials(path, VOXCELEB, missing="exclude")


def test_long_lists_are_read_in_seconds(tmp_path):
    speakers = np.arange(1000).repeat(100)
    table = pd.DataFrame(
        {
            "utterance_id": [f"id{s}-v-{i % 100:05d}" for i, s in enumerate(speakers)],
            "speaker_id": [f"id{s}" for s in speakers],
            "path": [f"/vox/id{s}/v/{i % 100:05d}.wav" for i, s in enumerate(speakers)],
        }
    )
    drawn = np.random.default_rng(0).integers(1000, size=580_000)
    path = tmp_path / "list.txt"
    path.write_text(
        "".join(
            f"1 id{s}/v/{i % 100:05d}.wav id{s}/v/{(i + 7) % 100:05d}.wav\n"
            for i, s in enumerate(drawn)
        )
    )
    start = time.process_time()
    assert len(read_trials(path, table)[0]) == 580_000
    assert time.process_time() - start < 8


def test_tables_come_back_as_written(tmp_path):
    trials = generate_trials(corpus([[2, 2], [3]]), None, None)
    write_table(trials.assign(score=0.25), tmp_path / "t.tsv")
    back = read_trials_table(tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(back, trials.assign(score=0.25), check_dtype=False)
    speakers = speakers_of(back, corpus([[2, 2], [3]]))
    assert ((speakers[:, 0] == speakers[:, 1]) == (back["target"] == 1)).all()
    with pytest.raises(TrialsError, match=r"1 utterance.* not in the manifest: s1-0-2"):
        speakers_of(back, corpus([[2, 2], [2]]))
    for text, reason in (
        ("enrolment\ttest\nx\ty\n", "missing column"),
        ("enrolment\ttest\ttarget\n", "no trials"),
        ("enrolment\ttest\ttarget\nx\ty\t1\nx\ty\t2\n", "line 3: target '2'"),
    ):
        (tmp_path / "bad.tsv").write_text(text)
        with pytest.raises(TrialsError, match=reason):
            read_trials_table(tmp_path / "bad.tsv")

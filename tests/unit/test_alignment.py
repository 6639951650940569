from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etaflow import alignment
from etaflow.alignment import AlignmentError, align, align_files
from etaflow.audio import read_audio, write_audio
from etaflow.corpora import fetch, recordings
from etaflow.corpora.base import Recording
from etaflow.metrics import normalize_text

MINI: dict[str, Any] = {"kind": "mini", "speakers": 2, "sentences": 2, "seed": 0}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    root = tmp_path_factory.mktemp("mini")
    fetch(MINI, root)
    return [item for item in recordings(MINI, root) if isinstance(item, Recording)]


def check(rows: list[alignment.Segment], text: str, seconds: float) -> None:
    """Rows in order of time, within the recording, with the words of the text one by one."""
    times = [time for start, stop, _, _ in rows for time in (start, stop)]
    assert times == sorted(times)
    assert all(start < stop for start, stop, _, _ in rows)
    assert times[0] >= 0
    assert times[-1] <= seconds
    words = [word for _, _, word, _ in rows]
    runs = [word for i, word in enumerate(words) if i == 0 or word != words[i - 1]]
    assert runs == normalize_text(text).split()


def test_synthesised_sentences_are_aligned(mini: list[Recording]) -> None:
    for item in mini:
        waveform = read_audio(item.path)
        rows = align(waveform, item.text.upper() + "!")
        check(rows, item.text, len(waveform) / 16_000)
        # Speech fills the recording but for short silences.
        assert sum(stop - start for start, stop, _, _ in rows) > 0.6 * len(waveform) / 16_000


def test_silence_put_before_the_recording_moves_its_phones(mini: list[Recording]) -> None:
    waveform, text = read_audio(mini[0].path), mini[0].text
    moved = align(np.pad(waveform, (8_000, 0)), text)
    for row, other in zip(align(waveform, text), moved, strict=True):
        assert other[2:] == row[2:]
        assert other[0] - row[0] == pytest.approx(0.5, abs=0.06)


def test_a_real_recording_is_aligned(speech_dir: Path) -> None:
    path = next(speech_dir.glob("LibriTTS/**/8887_281471_000008_000001.wav"))
    text = path.with_name(f"{path.stem}.normalized.txt").read_text(encoding="utf-8")
    waveform = read_audio(path)
    rows = align(waveform, text)
    check(rows, text, len(waveform) / 16_000)
    phones = [phone for _, _, word, phone in rows if word in ("only", "never")]
    assert phones == ["OW", "N", "L", "IY", "N", "EH", "V", "ER"]


def test_what_cannot_be_aligned_says_why(mini: list[Recording]) -> None:
    waveform, text = read_audio(mini[0].path), mini[0].text
    with pytest.raises(AlignmentError, match=r"^not in the dictionary: qqzz, zzqqx$"):
        align(waveform, f"{text} zzqqx qqzz zzqqx")
    with pytest.raises(AlignmentError, match=r"^no text$"):
        align(waveform, " … ")
    with pytest.raises(AlignmentError, match=r"^the recording does not fit the text$"):
        align(waveform, f"{text} " * 20)


def test_files_in_processes_are_as_alone_and_the_rest_is_named(
    mini: list[Recording], tmp_path: Path
) -> None:
    paths, texts = [item.path for item in mini], [item.text for item in mini]
    silent = tmp_path / "silent.wav"
    write_audio(silent, np.zeros(1_600, np.float32))
    names = ["a", "b", "c", "d", "e", "f", "g"]
    paths = [*paths, silent, tmp_path / "gone.wav", paths[0]]
    aligned, rejected = align_files(names, paths, [*texts, "two", "two", ""], workers=2)
    assert list(aligned) == ["utterance_id", "start", "stop", "word", "phone"]
    assert list(aligned["utterance_id"].unique()) == names[:4]
    for name, path, text in zip(names[:4], paths, texts, strict=False):
        rows = aligned.loc[aligned["utterance_id"] == name].drop(columns="utterance_id")
        assert list(rows.itertuples(index=False, name=None)) == align(read_audio(path), text)
    assert list(rejected["utterance_id"]) == names[4:]
    assert rejected["reason"].iloc[0] == "a phone lies outside the recording: two"
    assert rejected["reason"].iloc[1].startswith("unreadable")
    assert rejected["reason"].iloc[2] == "no text"

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from etaflow.asr import FasterWhisper, PocketSphinx, transcribe_files
from etaflow.audio import read_audio, write_audio

# Sentences one of which a LibriTTS speaker reads in each file below.
GRAMMAR = """#JSGF V1.0;
grammar test;
public <sentence> =
    ( only for him i'd never been able to do it )
  | ( i owe what little i know about pitching to springer )
  | ( barely had he started however when something brought him to a halt ) ;
"""
SPOKEN = {
    "only for him": "only for him i'd never been able to do it",
    "i owe what": "i owe what little i know about pitching to springer",
}


@pytest.fixture
def recordings():
    folder = os.environ.get("ETAFLOW_SPEECH_DIR")
    if not folder:
        pytest.skip("ETAFLOW_SPEECH_DIR, a folder of real recordings, is not set")
    texts = sorted(Path(folder).glob("LibriTTS/**/*.normalized.txt"))
    found = {}
    for path in texts:
        text = path.read_text().lower()
        for start in SPOKEN:
            if text.startswith(start):
                found[start] = path.with_name(path.name.replace(".normalized.txt", ".wav"))
    return found


def test_a_grammar_finds_its_sentences_in_any_order_and_in_processes(recordings):
    paths, expected = [recordings[start] for start in SPOKEN], list(SPOKEN.values())
    assert transcribe_files(PocketSphinx(GRAMMAR), paths) == expected
    waveforms = [read_audio(path) for path in reversed(paths)]
    assert PocketSphinx(GRAMMAR, workers=2).transcribe(waveforms) == expected[::-1]


def test_open_vocabulary_does_not_depend_on_what_came_before(recordings):
    waveforms = [read_audio(path)[:32_000] for path in recordings.values()]
    recognizer = PocketSphinx()
    alone = [recognizer.transcribe([waveform])[0] for waveform in waveforms]
    assert recognizer.transcribe(waveforms[::-1])[::-1] == alone
    assert alone[0].split()[:2] == ["only", "for"]


def test_nothing_heard_is_an_empty_text(tmp_path):
    path = tmp_path / "silence.wav"
    write_audio(path, np.zeros(8_000, np.float32))
    assert transcribe_files(PocketSphinx(GRAMMAR), [path]) == [""]


@pytest.mark.parametrize("bad", ["not a grammar", GRAMMAR.replace("springer", "zzqqx")])
def test_a_bad_grammar_is_refused(bad):
    with pytest.raises(ValueError, match="refuses the grammar"):
        PocketSphinx(bad)


def test_faster_whisper_asks_no_hub_for_what_a_folder_lacks(tmp_path):
    (tmp_path / "model.bin").touch()
    (tmp_path / "config.json").touch()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        FasterWhisper(tmp_path)


def test_faster_whisper_decodes_a_folder_deterministically(tmp_path, monkeypatch):
    calls = []

    class Model:
        def __init__(self, *arguments, **options):
            calls.append((arguments, options))

        def transcribe(self, waveform, **options):
            calls.append(options)
            return iter([SimpleNamespace(text=" One."), SimpleNamespace(text=" Two.")]), None

    monkeypatch.setattr("faster_whisper.WhisperModel", Model)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).touch()
    assert FasterWhisper(tmp_path).transcribe([np.zeros(9, np.float32)]) == ["One. Two."]
    (where, loading), decoding = calls
    assert where == (str(tmp_path),)
    assert loading["local_files_only"]
    assert decoding["temperature"] == 0  # no fallback, which samples
    assert not decoding["condition_on_previous_text"]


def test_texts_keep_to_one_line(tmp_path):
    class Chatty:
        def transcribe(self, waveforms):
            return [" two\nlines\t"] * len(waveforms)

    write_audio(tmp_path / "a.wav", np.zeros(1_600, np.float32))
    assert transcribe_files(Chatty(), [tmp_path / "a.wav"] * 70) == ["two lines"] * 70

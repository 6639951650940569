"""The mini corpus: balanced sentences, and the same bytes on every run."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from etaflow.audio import read_audio
from etaflow.corpora import CorpusError, build_manifest, fetch, mini, recordings, synthesis
from etaflow.corpora.base import Recording
from etaflow.corpora.mini import SESSIONS
from etaflow.corpora.splits import assign_splits
from etaflow.fetching import fetch_model
from etaflow.metrics import equal_error_rate
from etaflow.speaker import load_speaker_encoder
from etaflow.store import unit_rows
from tests.workflow_tools import load_config

CONFIG: dict[str, Any] = {
    "kind": "mini",
    "shards": 4,
    "speakers": 4,
    "sentences": 3,
    "seed": 0,
    "split": {"by": "speaker", "test_fraction": 0.25},
}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    fetch(CONFIG, root)
    return root


def test_bytes_do_not_depend_on_run_or_workers(corpus: Path, tmp_path: Path) -> None:
    fetch(CONFIG, tmp_path, workers=3)
    assert contents(tmp_path) == contents(corpus)
    fetch(CONFIG, tmp_path)  # over what is there
    assert contents(tmp_path) == contents(corpus)


def test_a_speaker_depends_on_nobody_else(corpus: Path, tmp_path: Path) -> None:
    fetch({**CONFIG, "speakers": 2}, tmp_path)
    fewer = contents(tmp_path)
    del fewer[synthesis.TABLE]
    assert fewer.items() <= contents(corpus).items()
    fetch({**CONFIG, "speakers": 1, "seed": 1}, tmp_path)
    assert not contents(tmp_path).items() & fewer.items() - {
        item for item in fewer.items() if not item[0].startswith("woman01")
    }


def test_files_and_table(corpus: Path) -> None:
    listing = recordings(CONFIG, corpus)
    assert len(listing) == 12
    assert {item.path for item in listing} == set(corpus.rglob("*.wav"))
    for item in listing:
        assert item.path == corpus / item.speaker_id / item.session_id / f"{item.utterance_id}.wav"
        info = soundfile.info(item.path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 1.0 < info.duration < 4.0
        for word, slot in zip(item.text.split(), mini.VOCABULARY, strict=True):
            assert word in slot
    assert Counter(item.session_id for item in listing) == {"a": 8, "b": 4}


def test_manifest(corpus: Path) -> None:
    manifest, rejected = build_manifest(CONFIG, corpus)
    assert (len(manifest), len(rejected)) == (12, 0)
    assert manifest[manifest.split == "test"].speaker_id.nunique() == 1


def test_the_default_test_side_has_women_and_men(tmp_path: Path) -> None:
    config = {**CONFIG, "speakers": 16, "sentences": 1}
    fetch(config, tmp_path, workers=2)
    manifest, _ = build_manifest(config, tmp_path)
    test = set(manifest[manifest.split == "test"].speaker_id)
    assert len(test) == 4
    assert {speaker.rstrip("0123456789") for speaker in test} == {"woman", "man"}


def test_speakers_are_as_many_and_the_first_ones_as_they_were() -> None:
    assert len(mini.SPEAKERS) == 60
    assert len({speaker.speaker_id for speaker in mini.SPEAKERS}) == 60
    assert len({speaker.variant for speaker in mini.SPEAKERS}) == 60
    assert mini.SPEAKERS[0] == mini.Speaker("woman01", "f2", 140, 50)
    assert mini.SPEAKERS[10] == mini.Speaker("woman06", "anika", 130, 20, 30)
    assert mini.SPEAKERS[15] == mini.Speaker("man08", "klatt3", 150, 50)
    assert {speaker.speaker_id[:-2] for speaker in mini.SPEAKERS[16:]} == {"voice"}
    pitches = [
        speaker.pitch + change for speaker in mini.SPEAKERS for _, change in SESSIONS.values()
    ]
    assert min(pitches) >= 0
    assert max(pitches) <= 99


@pytest.mark.slow
def test_sixty_speakers_are_told_apart(tmp_path: Path) -> None:
    """The bounds that the list of speakers states."""
    fetch({**CONFIG, "speakers": 60, "sentences": 8}, tmp_path / "mini", workers=2)
    entry = {"source": "package", "architecture": "resemblyzer"}
    fetch_model("resemblyzer", entry, tmp_path / "model")
    listing = recordings(CONFIG, tmp_path / "mini")
    vectors = load_speaker_encoder(tmp_path / "model").embed(
        [read_audio(item.path) for item in listing]
    )
    speakers = np.array([item.speaker_id for item in listing])
    sessions = np.array([item.session_id for item in listing])
    names = list(dict.fromkeys(speakers))
    means = unit_rows(np.stack([vectors[speakers == name].mean(axis=0) for name in names]))
    first, second = (
        unit_rows(
            np.stack(
                [vectors[(speakers == name) & (sessions == session)].mean(axis=0) for name in names]
            )
        )
        for session in "ab"
    )
    one, other = np.triu_indices(60, 1)
    assert (means[one] * means[other]).sum(axis=1).max() < 0.89
    assert (first * second).sum(axis=1).min() > 0.89
    one, other = np.triu_indices(len(vectors), 1)
    scores = (vectors[one] * vectors[other]).sum(axis=1)
    assert equal_error_rate(scores, speakers[one] == speakers[other])[0] < 0.04


def test_sentences_use_words_equally_often() -> None:
    said = mini.sentences("woman01", 24, seed=0)
    assert len(set(said)) == 24
    for slot, column in zip(mini.VOCABULARY, zip(*map(str.split, said), strict=True), strict=True):
        counts = Counter(column)
        assert set(counts) == set(slot)
        assert set(counts.values()) == {2, 3}
    assert mini.sentences("woman01", 24, seed=0) == said
    assert mini.sentences("woman01", 24, seed=1) != said
    assert mini.sentences("man01", 24, seed=0) != said


def test_recogniser_knows_the_grammar(corpus: Path, tmp_path: Path) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    assert [len(set(words)) for words in mini.VOCABULARY] == [10] * 5
    (tmp_path / "mini.gram").write_text(mini.grammar_jsgf())
    decoder = pocketsphinx.Decoder(
        jsgf=str(tmp_path / "mini.gram"), lm=None, samprate=16_000, loglevel="FATAL"
    )
    for words in mini.VOCABULARY:
        for word in words:
            assert decoder.lookup_word(word), word
    right = total = 0
    for item in recordings(CONFIG, corpus):
        samples, _ = soundfile.read(item.path, dtype="int16")
        silence = bytes(2 * 3200)
        decoder.start_utt()
        decoder.process_raw(silence + samples.tobytes() + silence, full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp().hypstr.split() if decoder.hyp() else []
        right += sum(a == b for a, b in zip(item.text.split(), heard, strict=False))
        total += 5
    assert right / total > 0.8


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="61 speakers: the mini corpus has 1 to 60"):
        fetch({**CONFIG, "speakers": 61}, tmp_path)
    with pytest.raises(CorpusError, match="fetch the corpus first"):
        recordings(CONFIG, tmp_path)


def test_an_unknown_voice_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "SPEAKERS", (mini.Speaker("nobody", "f2", 140, 50),))
    monkeypatch.setattr(synthesis._espeak, "__file__", "/nonexistent.py")
    with pytest.raises(CorpusError, match=r"speaker nobody cannot be synthesised \(status 2\)"):
        fetch({**CONFIG, "speakers": 1}, tmp_path)
    assert contents(tmp_path) == {}


def test_no_test_speaker_of_the_default_was_heard_by_the_models_of_the_package() -> None:
    def side(config: dict[str, Any], wanted: str) -> set[str]:
        speakers = set()
        for corpus in config["corpora"].values():
            if corpus["kind"] == "mini":
                names = [each.speaker_id for each in mini.SPEAKERS[: corpus["speakers"]]]
                found = [Recording(each, each, "a", Path(each)) for each in names]
                sides = assign_splits(found, **corpus["split"], seed=corpus["seed"])
                speakers |= {n for n, side in zip(names, sides, strict=True) if side == wanted}
        return speakers

    heard, tested = side(load_config("pretrain"), "train"), side(load_config(), "test")
    assert (len(heard), len(tested)) == (36, 24)
    assert heard.isdisjoint(tested)

"""`etaflow embed`: a folder to embeddings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from etaflow.audio import read_audio
from etaflow.cli import app
from etaflow.folder_embeddings import embed_folder, find_encoder, list_recordings
from etaflow.models import ModelError
from etaflow.speaker.embedding import embed_recordings
from etaflow.store import Embeddings
from tests.unit.test_speaker import tdnn_folder, voices


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "people"
    places = ["ann/one.wav", "ann/late/two.flac", "bob/one.wav", "loose.wav"]
    for place, wave in zip(places, voices(), strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / place, wave, 16_000)
    (root / "bob/empty.wav").touch()
    (root / "bob/notes.txt").write_text("no audio")
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


def test_a_folder_becomes_embeddings_and_arrays_beside(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "people.h5"
    done = run(folder, "-o", output, "--encoder", "resemblyzer", "--beside")
    assert done.exit_code == 0, done.output
    assert f"left out: {folder / 'bob/empty.wav'}: empty file" in done.stderr
    embeddings = Embeddings.read(output)
    assert embeddings.utterance_ids == ["ann_late_two", "ann_one", "bob_one", "loose"]
    assert embeddings.speaker_ids == ["late", "ann", "bob", "people"]
    assert (embeddings.encoder, embeddings.weights) == ("resemblyzer", "published")
    paths = [folder / place for place in ("ann/late/two.flac", "ann/one.wav", "bob/one.wav")]
    encoder = find_encoder("resemblyzer")
    for path, vector in zip([*paths, folder / "loose.wav"], embeddings.vectors, strict=True):
        beside = np.load(path.with_suffix(".npy"), allow_pickle=False)
        assert (beside.shape, beside.dtype) == ((256,), np.float32)
        np.testing.assert_array_equal(beside, vector)
        np.testing.assert_allclose(vector, encoder.embed([read_audio(path)])[0], atol=1e-5)
    assert len(list(folder.rglob("*.npy"))) == 4


def test_a_pattern_names_the_speakers(folder: Path, tmp_path: Path) -> None:
    model = tdnn_folder(tmp_path / "ecapa", "ecapa")
    output = tmp_path / "people.h5"
    pattern = r"(?P<speaker>[^/]+)/.*"
    done = run(folder, "-o", output, "--encoder", model, "--pattern", pattern)
    assert done.exit_code == 0, done.output
    assert f"left out: {folder / 'loose.wav'}: path does not match the pattern" in done.stderr
    assert "note: this encoder is untrained" in done.stderr
    embeddings = Embeddings.read(output)
    assert embeddings.speaker_ids == ["ann", "ann", "bob"]
    assert list(embeddings.speaker_means()) == ["ann", "bob"]
    assert list(folder.rglob("*.npy")) == []
    done = run(folder, "-o", output, "--encoder", model, "--pattern", "(?P<nobody>x)")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "has no group (?P<speaker>" in done.stderr


def test_what_a_killed_command_did_is_not_done_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etaflow.speaker import embedding
    from etaflow.speaker.resemblyzer import Resemblyzer

    monkeypatch.setattr(embedding, "BATCH_SECONDS", 3.0)
    seen: list[int] = []
    whole = Resemblyzer.embed

    def counted(self: Resemblyzer, waveforms: list[np.ndarray]) -> np.ndarray:
        if len(seen) == 2:
            raise RuntimeError("killed")
        seen.append(len(waveforms))
        return whole(self, waveforms)

    monkeypatch.setattr(Resemblyzer, "embed", counted)
    arguments = (folder, "-o", tmp_path / "people.h5", "--encoder", "resemblyzer")
    done = run(*arguments)
    assert (done.exit_code, (tmp_path / "people.h5").exists()) == (1, False)
    first = sum(seen)
    seen.clear()
    assert run(*arguments).exit_code == 0
    assert sum(seen) == 4 - first
    assert len(Embeddings.read(tmp_path / "people.h5").vectors) == 4


def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.h5"
    with pytest.raises(ModelError, match="nobody: neither a folder with a model"):
        find_encoder("nobody")
    for arguments, reason in (
        ((folder, "-o", output, "--encoder", "nobody"), "neither a folder with a model.json"),
        ((tmp_path / "no", "-o", output, "--encoder", "resemblyzer"), "no such folder"),
        ((folder, "-o", folder, "--encoder", "resemblyzer"), "is a folder; give the file"),
        (
            (folder / "loose.wav", "-o", output, "--encoder", "resemblyzer"),
            f"error: {folder / 'loose.wav'}: not a folder",
        ),
        (
            (folder, "-o", folder / "loose.wav", "--encoder", "resemblyzer"),
            "under the name of a recording; say NAME.h5",
        ),
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert done.stderr.startswith("error: ")
        assert reason in done.stderr
    assert soundfile.info(folder / "loose.wav").frames == len(voices()[3])
    soundfile.write(folder / "ann/one.flac", voices()[0], 16_000)
    done = run(folder, "-o", output, "--encoder", "resemblyzer")
    assert "utterance id 'ann_one' stands for two files" in done.stderr
    for path in folder.rglob("*.*"):
        if path.name != "empty.wav":
            path.unlink()
    done = run(folder, "-o", output, "--encoder", "resemblyzer")
    reason = f"of 1 audio files; the first, {folder / 'bob/empty.wav'}: empty file"
    assert reason in done.stderr
    (folder / "bob/empty.wav").unlink()
    done = run(folder, "-o", output, "--encoder", "resemblyzer")
    assert "no recording that can be used, of 0 audio files" in done.stderr
    assert not output.exists()


def test_arrays_of_others_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    output, theirs = tmp_path / "x.h5", folder / "ann/one.npy"
    arguments = (folder, "-o", output, "--encoder", "resemblyzer", "--beside")
    np.save(theirs, np.zeros((40, 256), np.float32))
    before = theirs.read_bytes()
    for content in (before, b"notes", b""):
        theirs.write_bytes(content)
        done = run(*arguments)
        assert (done.exit_code, output.exists()) == (1, False)
        assert f"error: {theirs} is no embedding of 256 numbers" in done.stderr
        assert theirs.read_bytes() == content
    np.save(theirs, np.zeros(256, np.float32))  # as an earlier command left it
    assert run(*arguments).exit_code == 0
    np.testing.assert_array_equal(np.load(theirs), Embeddings.read(output).rows(["ann_one"])[0])


def test_what_is_too_short_for_the_encoder_is_left_out(folder: Path, tmp_path: Path) -> None:
    encoder = find_encoder(str(tdnn_folder(tmp_path / "xvector", "xvector")))
    encoder.shortest = 5_200  # as WavLM-SV's
    short, enough = folder / "ann/short.wav", folder / "ann/enough.wav"
    for path, length in ((short, 5_199), (enough, 5_200)):
        soundfile.write(path, voices()[0][:length], 16_000)
    output = tmp_path / "x.h5"
    rejected = {
        item.path: item.reason for item in embed_folder(folder, output, encoder, None, False)
    }
    assert rejected[short] == "shorter than the 0.325 s that xvector needs"
    assert Embeddings.read(output).utterance_ids[:2] == ["ann_enough", "ann_late_two"]
    # A corpus is embedded as it is, or not at all.
    table, _ = list_recordings(folder, None)
    with pytest.raises(ValueError, match=r"1 of 6 recordings are shorter .*: ann_short; leave"):
        embed_recordings(encoder, table, tmp_path / "y.h5", "")
    assert not (tmp_path / "y.h5").exists()

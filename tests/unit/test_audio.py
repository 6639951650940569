"""Audio: what is refused and why, resampling, down-mixing, writing."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow import audio
from etaflow.audio import (
    SAMPLE_RATE,
    AudioError,
    check_audio,
    file_checksum,
    on_disk,
    read_ahead,
    read_audio,
    resample,
    resampled_length,
    write_audio,
)


def sine(frequency: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def cut(path: Path, share: float = 0.5) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def write(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, **kwargs: str) -> Path:
    soundfile.write(path, samples, rate, **kwargs)
    return path


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        check_audio(path)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_good_file_is_described(tmp_path: Path) -> None:
    stereo = np.stack([sine(440, 1, 22_050), sine(220, 1, 22_050)], axis=1)
    path = write(tmp_path / "a.wav", stereo, 22_050)
    info = check_audio(path)
    assert (info.num_samples, info.sample_rate) == (22_050, 22_050)
    assert check_audio(write(tmp_path / "b.wav", stereo, 22_050)).checksum == info.checksum
    assert check_audio(write(tmp_path / "c.wav", -stereo, 22_050)).checksum != info.checksum


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_formats_keep_their_length(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", sine(440, 1, SAMPLE_RATE))
    assert check_audio(path).num_samples == SAMPLE_RATE
    assert len(read_audio(path)) == SAMPLE_RATE


def test_opus_is_read(tmp_path: Path) -> None:
    samples = sine(440, 1, SAMPLE_RATE)
    path = write(tmp_path / "a.opus", samples, format="OGG", subtype="OPUS")
    assert check_audio(path).num_samples == SAMPLE_RATE


def test_missing_and_empty(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.wav") == "unreadable: No such file or directory"
    (tmp_path / "empty.wav").touch()
    assert reason(tmp_path / "empty.wav") == "empty file"
    assert reason(write(tmp_path / "header.wav", np.zeros(0))) == "no samples"


@pytest.mark.parametrize("suffix", ["wav", "aiff", "mp3"])
def test_truncated_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", sine(440, 2, SAMPLE_RATE))
    cut(path)
    assert reason(path).startswith("truncated: ")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_flac_does_not_decode(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE)
    path = write(tmp_path / "a.flac", noise)
    cut(path, share)
    assert reason(path).startswith(("truncated: ", "unreadable: "))


def test_wav_with_a_trailing_chunk_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(440, 1, SAMPLE_RATE))
    with path.open("ab") as stream:
        stream.write(b"LIST\x04\x00\x00\x00INFO")
    assert check_audio(path).num_samples == SAMPLE_RATE


def test_text_named_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("not audio at all\n" * 100)
    assert reason(path).startswith("unreadable: ")
    with pytest.raises(AudioError, match="unreadable"):
        read_audio(path)


@pytest.mark.parametrize("level", [0.0, 5e-5])
def test_silent(tmp_path: Path, level: float) -> None:
    path = write(tmp_path / "a.wav", sine(440, 1, SAMPLE_RATE, level), subtype="FLOAT")
    assert reason(path).startswith("silent: ")


def test_opposite_channels_are_silent_as_mono(tmp_path: Path) -> None:
    left = sine(440, 1, SAMPLE_RATE)
    path = write(tmp_path / "a.wav", np.stack([left, -left], axis=1), subtype="FLOAT")
    assert reason(path).startswith("silent: ")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, bad: float) -> None:
    samples = sine(440, 1, SAMPLE_RATE)
    samples[77] = bad
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert reason(path) == "NaN or infinite samples"
    with pytest.raises(AudioError, match="NaN"):
        read_audio(path)
    with pytest.raises(AudioError, match="NaN"):
        write_audio(tmp_path / "b.wav", samples)
    assert not (tmp_path / "b.wav").exists()


def test_too_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sine(440, 0.05, SAMPLE_RATE))
    assert reason(path) == "shorter than 0.1 s (0.050 s)"
    assert check_audio(write(path, sine(440, 0.1, SAMPLE_RATE))).num_samples == 1600


@pytest.mark.parametrize("rate", [4_000, 192_000])
def test_rate_out_of_range(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", sine(440, 1, rate), rate)
    assert reason(path) == f"sampling rate of {rate} Hz is outside 8 to 96 kHz"


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_reading_keeps_frequency_length_and_level(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", sine(1000, 2, rate), rate)
    waveform = read_audio(path)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - 2 * SAMPLE_RATE) <= 1
    middle = waveform[4000:28_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(1000, abs=1)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.01)
    assert len(read_audio(path, sample_rate=None)) == 2 * rate


def test_resampling_removes_what_would_alias() -> None:
    assert np.abs(resample(sine(15_000, 1, 48_000), 48_000, 16_000)[2000:-2000]).max() < 0.01


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = sine(440, 1, SAMPLE_RATE), sine(990, 1, SAMPLE_RATE, 0.2)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), (left + right) / 2, atol=1e-7)


def test_writing_is_exact_to_16_bit(tmp_path: Path) -> None:
    waveform = sine(440, 1, SAMPLE_RATE)
    write_audio(tmp_path / "a.wav", waveform)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), waveform, atol=1 / 32768)


def test_writing_scales_a_peak_beyond_one_instead_of_clipping(tmp_path: Path) -> None:
    waveform = sine(440, 1, SAMPLE_RATE, amplitude=2.5)
    write_audio(tmp_path / "a.flac", waveform)
    np.testing.assert_allclose(read_audio(tmp_path / "a.flac"), waveform / 2.5, atol=2 / 32768)


def test_the_error_survives_a_process_pool() -> None:
    error = pickle.loads(pickle.dumps(AudioError(Path("a.wav"), "empty file")))
    assert (str(error), error.reason) == ("a.wav: empty file", "empty file")


@given(st.integers(8_000, 96_000), st.integers(1, 200_000))
@settings(max_examples=50, deadline=None)
def test_resampled_lengths_are_what_is_announced(rate: int, samples: int) -> None:
    rate -= rate % 25  # common rates; coprime ones make filters of millions of taps
    waveform = np.zeros(samples, np.float32)
    assert len(resample(waveform, rate, 16_000)) == resampled_length(samples, rate)


def test_a_long_waveform_has_the_announced_length_too() -> None:
    # torchaudio counts 2,097,359 samples here.
    waveform = np.zeros(5_780_846, np.float32)
    assert (
        len(resample(waveform, 44_100, 16_000)) == 2_097_360 == resampled_length(5_780_846, 44_100)
    )


def test_reading_ahead_keeps_the_order_and_stops_at_a_bad_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.wav" for index in range(5)]
    for index, path in enumerate(paths):
        write_audio(path, np.full(800 * (5 - index), 0.1 * (index + 1), np.float32))
    asked: list[int] = []

    files = [(path, file_checksum(path)) for path in paths]

    def batches() -> Iterator[list[tuple[Path, str]]]:
        for number, batch in enumerate([[files[3], files[0]], [files[1]], [files[4], files[2]]]):
            asked.append(number)
            yield batch

    reading = read_ahead(batches())
    first = next(reading)
    assert asked == [0, 1]  # the next one is on its way, and no other
    assert [len(wave) for wave in first] == [1600, 4000]
    (second,) = next(reading)
    np.testing.assert_array_equal(second, read_audio(paths[1]))
    assert [len(wave) for wave in next(reading)] == [800, 2400]
    with pytest.raises(StopIteration):
        next(reading)
    write_audio(paths[1], np.full(3200, 0.3, np.float32))
    reading = read_ahead([[files[0]], [files[1]]])
    assert len(next(reading)) == 1
    with pytest.raises(AudioError, match=r"1\.wav: changed since its manifest was made"):
        next(reading)
    paths[1].unlink()
    reading = read_ahead([[files[1]]])
    with pytest.raises(AudioError, match=r"1\.wav: gone since its manifest was made; put it back"):
        next(reading)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("target", [16_000, 24_000])
def test_reading_in_blocks_is_reading_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, target: int
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (rate + 123, 2)).astype(np.float32)
    path = write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    expected = resample(samples.mean(axis=1), rate, target)
    monkeypatch.setattr(audio, "BLOCK", 1_000)
    waveform = read_audio(path, target)
    assert len(waveform) == resampled_length(len(samples), rate, target)
    np.testing.assert_allclose(waveform, expected, atol=2e-6)


def test_a_waveform_on_disk_is_that_in_memory() -> None:
    blocks = [sine(200, 0.1, 16_000), np.zeros(0, np.float32), sine(300, 0.2, 16_000)]
    np.testing.assert_array_equal(on_disk(blocks), np.concatenate(blocks))
    assert len(on_disk([])) == 0


def test_a_gain_is_applied_and_never_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "BLOCK", 1_000)
    waveform = sine(200, 0.5, 16_000, amplitude=0.5)
    assert write_audio(tmp_path / "x.flac", waveform, gain=0.5) == 0.5
    np.testing.assert_allclose(read_audio(tmp_path / "x.flac"), 0.5 * waveform, atol=1e-4)
    assert write_audio(tmp_path / "x.wav", waveform, gain=8.0) == pytest.approx(2, rel=1e-3)
    np.testing.assert_allclose(read_audio(tmp_path / "x.wav"), 2 * waveform, atol=2e-4)


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise soundfile.LibsndfileError(2)  # what libsndfile says where there is no room

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(AudioError, match=r"x\.wav: cannot be written \(.*is the disk full"):
        write_audio(tmp_path / "x.wav", sine(200, 0.5, 16_000))
    assert list(tmp_path.iterdir()) == []


def test_a_flac_file_that_does_not_tell_its_length(tmp_path: Path) -> None:
    path = tmp_path / "piped.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    file = bytearray(path.read_bytes())
    # The last 36 bits of STREAMINFO's first 18 bytes: 0 stands for a stream of unknown length.
    file[21] &= 0xF0
    file[22:26] = bytes(4)
    path.write_bytes(file)
    with pytest.raises(AudioError, match=r"piped\.flac: its header does not tell its length"):
        check_audio(path)

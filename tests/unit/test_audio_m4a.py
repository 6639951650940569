"""M4A: the recording comes back in its place and length, and what is damaged is refused."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from etaflow import audio
from etaflow.audio import (
    SAMPLE_RATE,
    AudioError,
    check_audio,
    read_audio,
    read_unchanged,
    resample,
)
from etaflow.decoding import open_audio
from tests.m4a_tools import needs_aac, write_m4a

pytestmark = needs_aac

STREAMED = "empty_moov+default_base_moof+frag_every_frame"


def tone(num_samples: int, rate: int = SAMPLE_RATE, frequency: float = 440.0) -> np.ndarray:
    """A sine and some noise, whose place shows in a cross-correlation."""
    sine = 0.5 * np.sin(2 * np.pi * frequency * np.arange(num_samples) / rate)
    noise = np.random.default_rng(0).normal(0, 0.01, num_samples)
    return (sine + noise).astype(np.float32)


def snr(expected: np.ndarray, found: np.ndarray) -> float:
    """In dB."""
    return float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()))


def lag(expected: np.ndarray, found: np.ndarray) -> int:
    """Samples that `found` comes late."""
    size = 2 * max(len(expected), len(found))
    products = np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size))
    place = int(np.argmax(np.fft.irfft(products)))
    return place if place < size // 2 else place - size


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        check_audio(path)
    assert str(path) in str(caught.value)
    with pytest.raises(AudioError) as when_read:
        read_audio(path)
    assert when_read.value.reason == caught.value.reason
    return caught.value.reason


# Where the edit list, in ms, rounds down past the last sample, FFmpeg drops a packet of one sample.
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("num_samples", [40_000, 40 * 1024, 40 * 1024 - 1])
def test_the_recording_comes_back_in_its_place(tmp_path: Path, rate: int, num_samples: int) -> None:
    samples = tone(num_samples, rate)
    path = write_m4a(tmp_path / "a.m4a", samples, rate)
    info = check_audio(path)
    assert (info.num_samples, info.sample_rate) == (num_samples, rate)
    found = read_audio(path, None)
    assert found.dtype == np.float32
    assert len(found) == num_samples
    assert lag(samples, found) == 0
    assert snr(samples, found) > 25
    np.testing.assert_array_equal(read_unchanged(path, info.checksum, rate), found)


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_stereo_is_the_mean_of_its_channels(tmp_path: Path, codec: str) -> None:
    left, right = tone(20_000), 0.4 * tone(20_000, frequency=990)
    path = write_m4a(tmp_path / "a.m4a", np.stack([left, right], axis=1), codec=codec)
    with open_audio(path) as sound:
        assert (sound.rate, sound.channels, sound.promised) == (SAMPLE_RATE, 2, None)
        blocks = list(sound.blocks(3_000))
    assert [block.shape for block in blocks] == [(3_000, 2)] * 6 + [(2_000, 2)]
    found = read_audio(path)
    np.testing.assert_array_equal(found, np.concatenate(blocks).mean(axis=1))
    assert snr((left + right) / 2, found) > 25


def test_alac_is_exact_to_16_bit(tmp_path: Path) -> None:
    samples = tone(20_000)
    found = read_audio(write_m4a(tmp_path / "a.m4a", samples, codec="alac"))
    np.testing.assert_allclose(found, samples, atol=1 / 32768)


def test_44_khz_is_resampled(tmp_path: Path) -> None:
    samples = tone(2 * 44_100, 44_100)
    waveform = read_audio(write_m4a(tmp_path / "a.m4a", samples, 44_100))
    assert len(waveform) == 2 * SAMPLE_RATE
    middle = waveform[4000:28_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(440, abs=1)
    assert snr(resample(samples, 44_100, SAMPLE_RATE), waveform) > 25


def test_reading_in_blocks_is_reading_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_m4a(tmp_path / "a.m4a", tone(44_100, 44_100), 44_100)
    expected = read_audio(path)
    for block in (700, 5_000):
        monkeypatch.setattr(audio, "BLOCK", block)
        np.testing.assert_allclose(read_audio(path), expected, atol=2e-6)


@pytest.mark.parametrize("flags", ["", "faststart", STREAMED, STREAMED + "+global_sidx+dash"])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, flags: str) -> None:
    whole = write_m4a(tmp_path / "a.m4a", tone(20_000), flags=flags)
    assert 20_000 <= check_audio(whole).num_samples <= 20_000 + 1024
    content, path = whole.read_bytes(), tmp_path / "cut.m4a"
    for share in (0.01, 0.3, 0.6, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        assert reason(path).startswith("truncated: ")


def test_the_end_may_be_missing_between_two_boxes(tmp_path: Path) -> None:
    path = write_m4a(tmp_path / "a.m4a", tone(20_000))
    path.write_bytes(path.read_bytes().partition(b"moov")[0][:-4])
    assert reason(path) == "truncated: the index (moov) is missing, which ends most files"
    write_m4a(path, tone(20_000), flags="faststart")
    path.write_bytes(path.read_bytes().partition(b"mdat")[0][:-4])
    assert reason(path) == "truncated: 0 of 21 packets could be read"
    write_m4a(path, tone(20_000), flags=STREAMED + "+global_sidx+dash")
    fragments = path.read_bytes().split(b"moof")
    path.write_bytes(b"moof".join(fragments[:11])[:-4])
    assert reason(path) == "truncated: 0.64 of 1.31 s could be read"


def test_what_follows_the_recording_may_be_anything(tmp_path: Path) -> None:
    path = write_m4a(tmp_path / "a.m4a", tone(20_000))
    with path.open("ab") as stream:
        stream.write(b"TAG of another program" * 5)
    assert check_audio(path).num_samples == 20_000


@pytest.mark.parametrize("filling", [bytes(300), np.random.default_rng(1).bytes(300)])
def test_damaged_data_are_named(tmp_path: Path, filling: bytes) -> None:
    path = write_m4a(tmp_path / "a.m4a", tone(20_000))
    content = bytearray(path.read_bytes())
    content[4000 : 4000 + len(filling)] = filling
    path.write_bytes(content)
    assert reason(path).startswith("damaged: packet ")
    assert reason(path).endswith("cannot be decoded (Invalid data found when processing input)")


def test_missing_empty_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    assert reason(path) == "unreadable: No such file or directory"
    path.touch()
    assert reason(path) == "empty file"
    path.write_text("not audio at all\n" * 100)
    assert reason(path) == "unreadable: Invalid data found when processing input"
    path.unlink()
    path.mkdir()
    assert reason(path) == "unreadable: Is a directory"


def test_no_audio_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        for packet in [*stream.encode(picture), *stream.encode(None)]:
            container.mux(packet)
    assert reason(path) == "no audio stream"


@pytest.mark.parametrize(
    ("samples", "rate", "expected"),
    [
        (np.zeros(16_000), 16_000, "silent: the mono signal never exceeds -80 dBFS"),
        (tone(800), 16_000, "shorter than 0.1 s (0.050 s)"),
        (tone(7_350, 7_350), 7_350, "sampling rate of 7350 Hz is outside 8 to 96 kHz"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, samples: np.ndarray, rate: int, expected: str) -> None:
    with pytest.raises(AudioError) as caught:
        check_audio(write_m4a(tmp_path / "a.m4a", samples, rate))
    assert caught.value.reason == expected


def test_a_name_with_a_colon_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_m4a(tmp_path / "a.m4a", tone(20_000)).rename(tmp_path / "http:a.M4A")
    monkeypatch.chdir(tmp_path)
    assert check_audio("http:a.M4A").num_samples == 20_000


def test_other_formats_do_without_pyav() -> None:
    code = "import sys, etaflow.audio; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

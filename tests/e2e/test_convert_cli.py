"""`etaflow convert` on recordings of any kind, as a program."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from etaflow.audio import read_audio, resampled_length, write_audio
from etaflow.loudness import integrated_loudness

pytestmark = pytest.mark.slow


def convert(*arguments: str | Path, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{before}from etaflow.cli import app; app()"
    return subprocess.run(
        [sys.executable, "-c", program, "convert", *arguments], capture_output=True, text=True
    )


# The peak of its own memory: `resource` counts that of the process which forked it, too.
SAY_PEAK = """import atexit, sys
atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))
"""


@pytest.fixture(scope="module")
def speech(speech_dir: Path) -> list[np.ndarray]:
    paths = sorted((speech_dir / "LibriSpeech").rglob("*.flac"))[:3]
    return [read_audio(path) for path in paths]


def recording(path: Path, waveform: np.ndarray, rate: int, channels: int = 1) -> Path:
    from etaflow.audio import resample

    samples = resample(waveform, 16_000, rate)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"),
    [(8_000, 1, "wav"), (44_100, 2, "wav"), (48_000, 1, "flac"), (16_000, 2, "ogg")],
)
def test_any_rate_and_stereo(
    tmp_path: Path, bundle: Path, speech: list, rate: int, channels: int, suffix: str
) -> None:
    source = recording(tmp_path / f"source.{suffix}", speech[0], rate, channels)
    reference = recording(tmp_path / f"reference.{suffix}", speech[1], rate, channels)
    output = tmp_path / "out.wav"
    done = convert(source, reference, "-o", output, "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    assert "converting source" in done.stderr
    info = soundfile.info(output)
    num_samples = soundfile.info(source).frames
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert info.frames == resampled_length(num_samples, rate)
    # What an untrained vocoder says is mostly offset, and would clip at -16 LUFS.
    quieter = re.search(r"note: (\d+\.\d) dB quieter than asked for", done.stderr)
    missing = float(quieter[1]) if quieter else 0.0
    loudness = integrated_loudness(read_audio(output), 16_000)
    assert loudness == pytest.approx(-16 - missing, abs=0.5)


def test_what_is_too_short_is_refused_and_leaves_nothing(
    tmp_path: Path, bundle: Path, speech: list
) -> None:
    source = tmp_path / "short.wav"
    write_audio(source, speech[0][:800])
    reference = recording(tmp_path / "reference.wav", speech[1], 16_000)
    for pair in ((source, reference), (reference, source)):
        done = convert(*pair, "-o", tmp_path / "out.wav", "--bundle", bundle)
        assert done.returncode == 1
        assert done.stderr == f"error: {source}: shorter than 0.1 s (0.050 s)\n"
        assert not (tmp_path / "out.wav").exists()


def test_eleven_minutes_of_reference_and_a_long_source_within_two_gigabytes(
    tmp_path: Path, bundle: Path, speech: list
) -> None:
    long = np.tile(speech[0], 11 * 60 * 16_000 // len(speech[0]) + 1)[: 11 * 60 * 16_000]
    write_audio(tmp_path / "long.flac", long)
    reference = recording(tmp_path / "short.wav", speech[1], 16_000)
    for source, target in (("short.wav", "long.flac"), ("long.flac", "short.wav")):
        output = tmp_path / f"to-{target}"
        paths = [tmp_path / source, tmp_path / target, "-o", output, "--bundle", bundle]
        done = convert(*paths, before=SAY_PEAK)
        assert done.returncode == 0, done.stderr
        assert soundfile.info(output).frames == soundfile.info(tmp_path / source).frames
        peak = int(done.stderr.rpartition("VmHWM:")[2].split()[0]) / 1e6  # GB
        assert 0.2 < peak < 2, f"{peak:.2f} GB"
    assert reference.is_file()

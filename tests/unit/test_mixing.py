"""Mixtures by rows of LibriMix's metadata, against the definition written plainly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from etaflow.audio import AudioError, read_audio, write_lossless
from etaflow.separation.mixing import (
    MetadataError,
    Roots,
    metadata_columns,
    mix_row,
    read_metadata,
)
from etaflow.separation.noise import list_noises, pink_noise, read_noise

LENGTHS = {"a": 20_001, "b": 26_000, "c": 23_456}
ROW = {
    "mixture_ID": "a_b_c",
    "source_1_path": "x/a.flac",
    "source_1_gain": 0.6522426013163469,
    "source_2_path": "x/b.flac",
    "source_2_gain": 0.4052135302314628,
    "source_3_path": "x/c.flac",
    "source_3_gain": 1.4650837942347774,
    "noise_path": "tt/long.wav",
    "noise_gain": 3.278939726509671,
}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    generator = np.random.default_rng(0)
    speech, noise = tmp_path / "speech", tmp_path / "noise"
    for folder in (speech / "x", noise / "tt"):
        folder.mkdir(parents=True)
    for name, size in LENGTHS.items():
        soundfile.write(speech / f"x/{name}.flac", generator.normal(0, 0.1, size), 16_000)
    for name, size in {"long": 30_000, "short": 9_500, "tiny": 8_001}.items():
        stereo = generator.normal(0, 0.02, (size, 2))
        soundfile.write(noise / f"tt/{name}.wav", stereo, 16_000)
    return Roots(speech, noise)


def defined(row: dict, roots: Roots, rate: int, mode: str, kind: str) -> tuple:
    """The published definition: gain, resampling, lengths, sum."""
    sources = [
        soundfile.read(roots.speech / row[f"source_{i}_path"], dtype="float32")[0]
        for i in (1, 2, 3)
    ]
    longest = max(len(source) for source in sources)
    first = soundfile.read(roots.noise / row["noise_path"], dtype="float32")[0][:, 0]
    noise = first[:longest]
    window = np.hanning(16_001)
    up, down = window[:8001], window[8000:]
    while len(noise) < longest:
        head, tail = noise[:-8001], noise[-8001:]
        noise = np.concatenate([head, tail * down + first[:8001] * up, first[8001:]])
    noise = noise[:longest]
    gains = [row[f"source_{i}_gain"] for i in (1, 2, 3)] + [row["noise_gain"]]
    parts = [
        resample_poly(part * gain, rate, 16_000)
        for part, gain in zip([*sources, noise], gains, strict=True)
    ]
    if mode == "min":
        size = min(len(part) for part in parts)
        parts = [part[:size] for part in parts]
    else:
        size = max(len(part) for part in parts)
        parts = [np.concatenate([part, np.zeros(size - len(part))]) for part in parts]
    chosen = {"clean": parts[:3], "both": parts, "single": [parts[0], parts[3]]}[kind]
    mixture = np.zeros(size, np.float32)
    for part in chosen:
        mixture += part
    return mixture, parts[:1] if kind == "single" else parts[:3], parts[3]


@pytest.mark.parametrize("noise", ["tt/long.wav", "tt/short.wav"])
@pytest.mark.parametrize("kind", ["clean", "both", "single"])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_row_makes_the_mixture_that_it_defines(roots, rate, mode, kind, noise):
    row = ROW | {"noise_path": noise}
    made = mix_row(row, roots, rate, mode, kind)
    mixture, sources, expected_noise = defined(row, roots, rate, mode, kind)
    np.testing.assert_array_equal(made.mixture, mixture)
    np.testing.assert_array_equal(made.sources, np.stack(sources).astype(np.float32))
    parts = [*made.sources]
    if kind == "clean":
        assert made.noise is None
    else:
        np.testing.assert_array_equal(made.noise, expected_noise.astype(np.float32))
        parts.append(made.noise)
    np.testing.assert_allclose(np.sum(parts, axis=0, dtype=float), mixture, rtol=0, atol=3e-7)
    wanted = {"min": LENGTHS["a"], "max": LENGTHS["b"]}[mode]
    assert len(mixture) == -(-wanted * rate // 16_000)
    assert made.mixture.dtype == made.sources.dtype == np.float32
    assert (made.name, made.kind, made.sample_rate) == ("a_b_c", kind, rate)


def test_a_loud_mixture_is_neither_clipped_nor_scaled(roots):
    loud = ROW | {f"source_{i}_gain": 20.0 for i in (1, 2, 3)}
    made = mix_row(loud, roots, 16_000, "min", "clean")
    quiet = mix_row(ROW | {f"source_{i}_gain": 1.25 for i in (1, 2, 3)}, roots, 16_000)
    assert np.abs(made.mixture).max() > 1
    np.testing.assert_array_equal(made.mixture, 16 * quiet.mixture)


@pytest.mark.parametrize("kind", ["clean", "both", "single"])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_files_add_up_to_the_mixture(roots, tmp_path, suffix, kind):
    made = mix_row(ROW | {"noise_path": "tt/short.wav"}, roots, 8_000, "max", kind)
    path = made.write(tmp_path / "out", suffix)
    assert path == tmp_path / "out" / f"mix_{kind}" / f"a_b_c{suffix}"
    names = {"clean": ["s1", "s2", "s3"], "both": ["s1", "s2", "s3", "noise"]}
    folders = names.get(kind, ["s1", "noise"])
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == sorted(
        [*folders, path.parent.name]
    )
    parts = [read_audio(tmp_path / "out" / name / path.name, None) for name in folders]
    mixture = read_audio(path, None)
    step = 2.0**-23
    if suffix == ".wav":
        np.testing.assert_array_equal(parts[0], made.sources[0])
        np.testing.assert_array_equal(mixture, made.mixture)
        np.testing.assert_allclose(np.sum(parts, axis=0, dtype=float), mixture, atol=3e-7)
    else:
        np.testing.assert_array_equal(np.sum(parts, axis=0, dtype=float), mixture)
        np.testing.assert_allclose(parts[0], made.sources[0], rtol=0, atol=step / 2)
        np.testing.assert_allclose(mixture, made.mixture, rtol=0, atol=3 * step)
    assert soundfile.info(path).samplerate == 8_000
    assert soundfile.info(path).subtype == {".wav": "FLOAT", ".flac": "PCM_24"}[suffix]


def test_flac_refuses_what_it_would_clip_and_leaves_no_file(roots, tmp_path):
    loud = mix_row(ROW | {f"source_{i}_gain": 3.0 for i in (1, 2, 3)}, roots, 16_000)
    with pytest.raises(AudioError, match=r"would clip; write \.wav"):
        loud.write(tmp_path / "out", ".flac")
    assert not (tmp_path / "out" / "mix_clean").exists() or not list(
        (tmp_path / "out" / "mix_clean").iterdir()
    )


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_lossless_files_are_refused_for_what_is_no_number(tmp_path, name):
    with pytest.raises(AudioError, match="NaN"):
        write_lossless(tmp_path / name, np.array([0, np.nan], np.float32), 16_000)
    with pytest.raises(AudioError, match="written are"):
        write_lossless(tmp_path / "x.mp3", np.zeros(9, np.float32), 16_000)
    assert not list(tmp_path.iterdir())


def test_the_same_samples_are_the_same_bytes(tmp_path):
    # As libsndfile writes float WAV, a PEAK chunk holds the time.
    for name in ("x.wav", "x.flac"):
        write_lossless(tmp_path / name, np.linspace(-0.5, 0.5, 99, dtype=np.float32), 8_000)
        assert b"PEAK" not in (tmp_path / name).read_bytes()


def test_flac_keeps_every_value_of_24_bits(tmp_path):
    steps = np.array([-(1 << 23), (1 << 23) - 1, -1, 0, 1, 12_345, -7_654_321])
    write_lossless(tmp_path / "x.flac", (steps / (1 << 23)).astype(np.float32), 16_000)
    read = soundfile.read(tmp_path / "x.flac", dtype="float64")[0]
    assert (read * (1 << 23)).tolist() == steps.tolist()


def test_sources_of_another_rate_are_resampled_from_theirs(roots):
    time = np.arange(48_000) / 48_000
    tone = 0.1 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(roots.speech / "x/tone.wav", np.stack([tone, tone], axis=1), 48_000)
    row = ROW | {"source_1_path": "x/tone.wav", "source_1_gain": 0.5}
    made = mix_row(row, roots, 8_000, "min", "both")
    assert made.sources.shape == (3, 8_000)
    expected = 0.05 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    np.testing.assert_allclose(made.sources[0, 100:-100], expected[100:-100], atol=2e-4)


def test_synthesised_noise_is_that_of_its_seed(roots):
    one = mix_row(ROW | {"noise_path": "pink:7", "noise_gain": 1.0}, roots, 16_000, "max", "both")
    np.testing.assert_array_equal(one.noise, pink_noise(7, LENGTHS["b"]))
    np.testing.assert_array_equal(pink_noise(7, 500), pink_noise(7, 40_000)[:500])
    assert not np.array_equal(pink_noise(7, 500), pink_noise(8, 500))
    noise = pink_noise(3, 320_000)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.05, rel=0.05)
    power = np.abs(np.fft.rfft(noise)) ** 2  # 20 bins a hertz
    octaves = [power[20 * low : 40 * low].sum() for low in (125, 250, 500, 1000, 2000, 4000)]
    assert 10 * np.log10(max(octaves) / min(octaves)) < 1


def test_noises_are_listed_by_their_path_from_the_root(roots):
    assert list_noises(roots.noise) == ["tt/long.wav", "tt/short.wav", "tt/tiny.wav"]
    assert list_noises(roots.noise, "tt") == ["tt/long.wav", "tt/short.wav", "tt/tiny.wav"]
    with pytest.raises(AudioError, match="no audio files"):
        list_noises(roots.noise, "cv")


@pytest.mark.parametrize(("suffix", "speed"), [("sp08", 0.8), ("sp12", 1.2)])
def test_noise_at_another_speed_is_made_where_no_file_has_it(roots, suffix, speed):
    tone = np.sin(2 * np.pi * 1_000 / 16_000 * np.arange(48_000))
    soundfile.write(roots.noise / "tt/tone.wav", np.stack([tone, 0 * tone], axis=1), 16_000)
    name, lengths = f"tt/tone{suffix}.wav", [(32_000, 16_000)]
    made, rate = read_noise(name, roots.noise, lengths)
    expected = np.sin(2 * np.pi * 1_000 * speed / 16_000 * np.arange(32_000))
    assert (len(made), rate) == (32_000, 16_000)
    np.testing.assert_allclose(made[1_000:-1_000], expected[1_000:-1_000], atol=1e-3)
    soundfile.write(roots.noise / name, 0.5 * tone, 16_000)
    found, _ = read_noise(name, roots.noise, lengths)
    np.testing.assert_allclose(found, 0.5 * tone[:32_000], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"source_2_gain": float("nan")}, MetadataError, "a_b_c: source_2_gain is nan"),
        ({"source_2_gain": "loud"}, MetadataError, "source_2_gain is 'loud'"),
        ({"noise_gain": -1.0}, MetadataError, "noise_gain is -1.0"),
        ({"source_3_path": "x/none.flac"}, AudioError, r"none\.flac: unreadable"),
        ({"noise_path": "tt/none.wav"}, AudioError, r"none\.wav: unreadable"),
        ({"noise_path": "tt/tiny.wav"}, AudioError, r"tiny\.wav: 8001 samples .* too few"),
    ],
)
def test_rows_that_make_no_mixture_are_refused(roots, change, error, reason):
    with pytest.raises(error, match=reason):
        mix_row(ROW | change, roots, 16_000, "max", "both")


def test_mixtures_that_are_not_published_are_refused(roots):
    for arguments in ((44_100, "min", "clean"), (8_000, "mean", "clean"), (8_000, "min", "noisy")):
        with pytest.raises(ValueError, match="allowed are"):
            mix_row(ROW, roots, *arguments)
    with pytest.raises(ValueError, match="no folder is given"):
        mix_row(ROW, Roots(roots.speech), 8_000, "min", "both")
    assert mix_row(ROW, Roots(roots.speech)).noise is None


PUBLISHED = """\
mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain,noise_path,noise_gain
1580-141083-0046_7127-75947-0026,test-clean/1580/141083/1580-141083-0046.flac,0.6522426013163469,\
test-clean/7127/75947/7127-75947-0026.flac,0.4052135302314628,\
tt/421c0206_0.01983_440o0307_-0.01983.wav,3.278939726509671
"""


def test_published_tables_are_read_to_the_last_digit(tmp_path):
    path = tmp_path / "libri2mix_test-clean.csv"
    path.write_text(PUBLISHED)
    table = read_metadata(path)
    assert list(table.columns) == metadata_columns(2)
    assert table.loc[0, "source_1_gain"] == 0.6522426013163469
    assert table.loc[0, "noise_gain"] == 3.278939726509671
    assert table.loc[0, "mixture_ID"] == "1580-141083-0046_7127-75947-0026"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "No columns"),
        (PUBLISHED.splitlines()[0], "no mixture"),
        (PUBLISHED.replace("source_2_gain", "gain"), "no column source_2_gain"),
        (PUBLISHED.replace("noise_path", "noise"), "no column noise_path"),
        ("a,b\n1,2\n", "no column mixture_ID, source_1_path"),
        (PUBLISHED + PUBLISHED.splitlines()[1] + "\n", "stands there twice"),
        (PUBLISHED.replace("\n1580-", "\n../../1580-"), "cannot be the name of its files"),
        (PUBLISHED.replace("\n1580-", "\na\t1580-"), "cannot be the name of its files"),
        (PUBLISHED + PUBLISHED.splitlines()[1][32:] + "\n", "mixture '' cannot be the name"),
    ],
)
def test_tables_that_are_no_metadata_are_refused(tmp_path, text, reason):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(MetadataError, match=rf"m\.csv: .*{reason}"):
        read_metadata(path)


def test_a_row_of_a_read_table_is_taken_as_it_is(roots, tmp_path):
    pd.DataFrame([ROW]).to_csv(tmp_path / "m.csv", index=False)
    row = read_metadata(tmp_path / "m.csv").to_dict("records")[0]
    made, expected = (mix_row(each, roots, 8_000, "max", "both") for each in (row, ROW))
    np.testing.assert_array_equal(made.mixture, expected.mixture)

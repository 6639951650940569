"""What training crops are mixed with, measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.audio import write_audio
from etaflow.speaker.augment import (
    Augmentation,
    AugmentationError,
    Sounds,
    add_room,
    change_speed,
    scaled_noise,
)

SIZE = 8_000


def noise(seed: int, size: int = SIZE, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, size).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four recordings, one shorter than a crop and one in a folder of its own."""
    for number, size in enumerate([20_000, 3_000, 9_000]):
        write_audio(tmp_path / "sounds" / f"{number}.wav", noise(number, size, 0.02 * (number + 1)))
    write_audio(tmp_path / "sounds" / "deeper" / "3.flac", noise(3, 12_000))
    (tmp_path / "sounds" / "README").write_text("no recording")
    return tmp_path / "sounds"


def power(waveform: np.ndarray) -> float:
    return float(np.mean(waveform.astype(float) ** 2))


@settings(deadline=None, max_examples=25)
@given(snr=st.floats(-10, 40), level=st.floats(1e-3, 0.5))
def test_noise_lies_as_far_below_the_speech_as_asked(snr: float, level: float) -> None:
    speech = noise(0, level=level)
    added = scaled_noise(noise(1, level=0.3), speech, snr)
    assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr, abs=0.01)


def test_silence_is_not_made_louder() -> None:
    silence = np.zeros(SIZE, np.float32)
    assert not scaled_noise(silence, noise(0), 10).any()
    assert not scaled_noise(noise(0), silence, 10).any()


@pytest.mark.parametrize("kind", ["noise", "music", "babble"])
def test_what_a_mixture_holds_besides_the_speech_has_the_drawn_snr(folder: Path, kind: str) -> None:
    own: dict[str, Any] = {"folder": str(folder), "snr": [5, 15], "probability": 1.0}
    if kind == "babble":
        own["speakers"] = [3, 6]
    augmentation, speech, ratios = Augmentation({kind: own}), noise(9), []
    for seed in range(30):
        # A crop as long as the waveform is the waveform.
        mixture = augmentation.cut(speech, SIZE, np.random.default_rng(seed))
        added = mixture.astype(float) - speech
        ratios.append(10 * np.log10(power(speech) / power(added)))
    assert 4.9 < min(ratios) < 7
    assert 13 < max(ratios) < 15.1
    fixed = Augmentation({kind: {**own, "snr": [7, 7]}})
    added = fixed.cut(speech, SIZE, np.random.default_rng(0)).astype(float) - speech
    assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(7, abs=0.1)


def test_babble_is_the_sum_of_so_many_equally_loud_recordings(folder: Path) -> None:
    own = {"folder": str(folder), "snr": [0, 0], "speakers": [3, 3], "probability": 1.0}
    augmentation, speech = Augmentation({"babble": own}), noise(9)
    generator = np.random.default_rng(4)
    found = augmentation.cut(speech, SIZE, generator) - speech
    same = np.random.default_rng(4)
    same.integers(1), same.integers(1), same.random(), same.uniform(), same.integers(3, 4)
    crops = Sounds(folder).draw_crops(3, SIZE, same)
    assert generator.random() == same.random()
    total = sum(crop / np.sqrt(power(crop)) for crop in crops)
    expected = total * np.sqrt(power(speech) / power(total))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_recording_is_drawn_twice_as_long_as_they_last(folder: Path) -> None:
    sounds = Sounds(folder)
    assert [Path(name).name for name in sounds.names] == ["0.wav", "1.wav", "2.wav", "3.flac"]
    crops = sounds.draw_crops(4, 100, np.random.default_rng(0))
    assert len({crop.tobytes() for crop in crops}) == 4
    assert len(sounds.draw_crops(9, 100, np.random.default_rng(0))) == 9


@pytest.mark.parametrize("size", [700, 20_000])  # shorter and longer than the speech
@pytest.mark.parametrize("direct", [0, 40])
def test_a_room_is_a_convolution_with_the_direct_path_in_place(size: int, direct: int) -> None:
    speech = noise(0)
    response = noise(1, size, 0.1) * np.exp(-np.arange(size) / 200).astype(np.float32)
    response[direct] = -1.0
    wet = np.convolve(speech.astype(float), response)[direct : direct + SIZE]
    expected = wet * np.sqrt(power(speech) / power(wet))
    np.testing.assert_allclose(add_room(speech, response), expected, atol=1e-4)


def test_an_echo_is_where_it_should_be() -> None:
    speech, response = np.zeros(1000, np.float32), np.zeros(300, np.float32)
    speech[[100, 900]], response[50], response[250] = 1.0, 1.0, 0.5
    wet = add_room(speech, response)
    assert np.flatnonzero(np.abs(wet) > 0.01).tolist() == [100, 300, 900]  # none wraps around
    assert wet[300] / wet[100] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 0.85])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = change_speed(tone, factor)
    assert len(faster) == np.ceil(round(16_000 / factor, 6))
    spectrum = np.abs(np.fft.rfft(faster))
    assert spectrum.argmax() * 16_000 / len(faster) == pytest.approx(400 * factor, abs=1)


def test_crops_at_any_speed_are_of_one_size_and_as_the_seed_says(folder: Path) -> None:
    augmentation = Augmentation(
        {
            "speed": {"factors": [0.9, 1.0, 1.1]},
            "noise": {"folder": str(folder), "snr": [0, 15], "probability": 0.5},
            "reverberation": {"folder": str(folder), "probability": 0.5},
        }
    )
    for size in (100, 3_001, 30_000):
        cuts = [augmentation.cut(noise(0), size, np.random.default_rng(s)) for s in range(12)]
        assert {(cut.shape, cut.dtype.name) for cut in cuts} == {((size,), "float32")}
        assert len({cut.tobytes() for cut in cuts}) > 6
        again = [augmentation.cut(noise(0), size, np.random.default_rng(s)) for s in range(12)]
        assert all(map(np.array_equal, cuts, again))


def test_probabilities_are_those_of_each_crop(folder: Path) -> None:
    speech = noise(0)
    own = {"folder": str(folder), "snr": [0, 15], "probability": 0.3}
    cuts = [
        Augmentation({"noise": own}).cut(speech, SIZE, np.random.default_rng(s)) for s in range(100)
    ]
    clean = sum(np.array_equal(cut, speech) for cut in cuts)
    assert 58 <= clean <= 82
    plain = Augmentation({}).cut(speech, SIZE, np.random.default_rng(0))
    assert np.array_equal(plain, speech)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(AugmentationError, match=r"empty: no recordings to augment with \(\.wav"):
        Sounds(tmp_path / "empty")
    (folder / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(AugmentationError, match=r"broken\.wav: unreadable.*: mend or remove it"):
        Augmentation({"reverberation": {"folder": str(folder), "probability": 1}})


def test_the_digest_changes_with_the_recordings(folder: Path) -> None:
    own = {"reverberation": {"folder": str(folder), "probability": 1}}
    before = Augmentation(own).digest
    assert Augmentation(own).digest == before
    write_audio(folder / "0.wav", noise(7))
    assert Augmentation(own).digest != before


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"echo": {}}, "augmentation 'echo': known are noise, music, babble, reverberation, speed"),
        ({"speed": {}}, "augmentation speed: nothing given, factors expected"),
        ({"speed": {"factors": [1, 0]}}, r"augmentation speed: factors \[1, 0\]"),
        ({"noise": {"folder": "x"}}, "noise: folder given, folder, probability, snr expected"),
        (
            {"noise": {"folder": "x", "snr": [9, 3], "probability": 1}},
            "noise: snr from 9 to 3 dB",
        ),
        ({"reverberation": {"folder": "x", "probability": 2}}, "reverberation: probability 2"),
        (
            {"babble": {"folder": "x", "snr": [3, 9], "probability": 1, "speakers": [0, 3]}},
            "babble: 0 to 3 speakers",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(given: dict, reason: str) -> None:
    with pytest.raises(AugmentationError, match=reason):
        Augmentation(given)

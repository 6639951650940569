"""Crops of mixtures, and mixtures made anew."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from etaflow.audio import file_checksum, read_audio, write_lossless
from etaflow.decoding import AudioError
from etaflow.separation.crops import MixtureCrops, MixtureFiles
from etaflow.separation.mixing import MetadataError
from etaflow.separation.tables import read_mixtures
from tests.separation_training_tools import RATE, SAMPLES, make_mixtures

PAIRS = [(0, 1), (2, 3), (1, 4), (0, 5), (2, 5)]
SIZE = 500


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("noisy")
    return read_mixtures([make_mixtures(folder, PAIRS, noise=True, sizes=[SAMPLES, 300])])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_mixtures([make_mixtures(tmp_path_factory.mktemp("clean"), PAIRS)])


def place(crop: np.ndarray, whole: np.ndarray) -> int:
    """Where a crop was cut; it is there once."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, len(crop))
    (found,) = np.flatnonzero((windows == crop).all(axis=1))
    return int(found)


def test_a_crop_is_of_the_mixture_and_its_sources_at_one_place(noisy: pd.DataFrame) -> None:
    crops = MixtureCrops(MixtureFiles(noisy), SIZE)
    assert len(crops) == len(PAIRS)
    row, places = noisy.iloc[2], set()
    for seed in range(20):
        item = crops[2, (7, seed)]
        assert item["utterance_id"] == "m02"
        mixture, sources = item["mixture"].numpy(), item["sources"].numpy()
        assert (mixture.dtype, sources.dtype) == (np.float32, np.float32)
        assert (mixture.shape, sources.shape) == ((SIZE,), (2, SIZE))
        start = place(mixture, read_audio(row["mixture_path"], None))
        for number in (1, 2):
            whole = read_audio(row[f"source_{number}_path"], None)
            assert place(sources[number - 1], whole) == start
        places.add(start)
        again = crops[2, (7, seed)]
        assert again["mixture"].equal(item["mixture"])
    assert len(places) > 15


def test_what_is_too_short_is_padded_at_its_end(noisy: pd.DataFrame) -> None:
    for dynamic in (False, True):
        item = MixtureCrops(MixtureFiles(noisy), 4_000, dynamic)[1, (0, 0)]
        assert item["mixture"].shape == (4_000,)
        assert item["sources"].shape == (2, 4_000)
        assert not item["mixture"][SAMPLES:].any()
        assert not item["sources"][:, SAMPLES:].any()
        assert (item["sources"][:, :300].abs().amax(dim=1) > 0).all()
    whole = MixtureCrops(MixtureFiles(noisy), 4_000)[1, (0, 0)]["mixture"].numpy()
    np.testing.assert_array_equal(whole[:300], read_audio(noisy["mixture_path"][1], None))
    assert not whole[300:].any()


def test_a_new_mixture_is_the_sum_of_sources_of_different_speakers(noisy: pd.DataFrame) -> None:
    crops = MixtureCrops(MixtureFiles(noisy), 200, dynamic=True)
    companions, noises, places = Counter[str](), Counter[str](), set()
    for seed in range(120):
        item = crops[0, (7, seed)]
        own, other, noise = item["utterance_id"].split(" ")
        assert own == "m00"
        sources = item["sources"].numpy()
        rows = noisy.set_index("mixture_ID")
        speakers, starts = [], []
        for name, crop in zip((own, other), sources, strict=True):
            for number in (1, 2):
                whole = read_audio(rows.loc[name, f"source_{number}_path"], None)
                windows = np.lib.stride_tricks.sliding_window_view(whole, len(crop))
                if (found := (windows == crop).all(axis=1)).any():
                    speakers.append(rows.loc[name, f"speaker_{number}"])
                    starts.append(int(np.flatnonzero(found)[0]))
        assert len(speakers) == len(set(speakers)) == 2
        assert speakers[0] in ("s0", "s1")
        rest = item["mixture"].numpy() - sources.sum(axis=0)
        added = read_audio(rows.loc[noise, "noise_path"], None)
        windows = np.lib.stride_tricks.sliding_window_view(added, len(rest))
        assert np.abs(windows - rest).max(axis=1).min() < 1e-7
        companions[speakers[1]] += 1
        noises[noise] += 1
        places.add(tuple(starts))
    assert companions.keys() == {"s0", "s1", "s2", "s3", "s4", "s5"}
    assert len(noises) == len(PAIRS)
    assert len(places) > 100
    assert any(one != other for one, other in places)


def test_a_mixture_of_clean_sources_is_their_sum(clean: pd.DataFrame) -> None:
    crops = MixtureCrops(MixtureFiles(clean), SIZE, dynamic=True)
    heard = set()
    for index in range(len(PAIRS)):
        for seed in range(20):
            item = crops[index, (3, seed)]
            assert item["mixture"].equal(item["sources"].sum(dim=0))
            names = item["utterance_id"].split(" ")
            assert len(names) == 2
            assert names[0] == f"m{index:02d}"
            heard.add((index, item["sources"][0].abs().max().item()))
    assert {index for index, _ in heard} == set(range(len(PAIRS)))


def test_a_new_mixture_needs_speakers_enough(tmp_path: Path) -> None:
    table = read_mixtures([make_mixtures(tmp_path, [(1, 1)])])
    assert len(MixtureCrops(MixtureFiles(table), SIZE)) == 1
    with pytest.raises(MetadataError, match=r"1 speaker\(s\) in all mixtures; .* 2 different"):
        MixtureCrops(MixtureFiles(table), SIZE, dynamic=True)


def with_source(table: pd.DataFrame, path: Path, samples: np.ndarray) -> pd.DataFrame:
    """The table with another first source of its first mixture."""
    write_lossless(path, samples.astype(np.float32), RATE)
    changed = table.copy()
    changed.loc[0, ["source_1_path", "source_1_checksum"]] = [str(path), file_checksum(path)]
    return changed


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_crop_in_which_one_is_silent_is_drawn_again(
    clean: pd.DataFrame, tmp_path: Path, dynamic: bool
) -> None:
    late = np.zeros(SAMPLES)
    late[3 * SAMPLES // 4 :] = 0.1 * np.sin(np.arange(SAMPLES // 4))
    table = with_source(clean, tmp_path / "late.wav", late)
    crops = MixtureCrops(MixtureFiles(table), SIZE, dynamic)
    for seed in range(40):
        assert (np.ptp(crops[0, (0, seed)]["sources"].numpy(), axis=1) > 2e-4).all()
    for level in (0.0, 9e-5):
        silent = with_source(clean, tmp_path / f"{level}.wav", level * np.sign(late - 0.05))
        for size in (SIZE, 2 * SAMPLES):
            crops = MixtureCrops(MixtureFiles(silent), size, dynamic)
            with pytest.raises(MetadataError, match=rf"mixture m00: no crop of {size} samples"):
                [crops[0, (0, seed)] for seed in range(20)]


def test_a_file_that_changed_is_named(clean: pd.DataFrame, tmp_path: Path) -> None:
    table = with_source(clean, tmp_path / "other.wav", np.ones(SAMPLES))
    write_lossless(tmp_path / "other.wav", np.zeros(SAMPLES, np.float32), RATE)
    with pytest.raises(AudioError, match=r"other\.wav: changed since its table was written"):
        MixtureCrops(MixtureFiles(table), SIZE)[0, (0, 0)]
    (tmp_path / "other.wav").unlink()
    with pytest.raises(AudioError, match=r"other\.wav: unreadable"):
        MixtureCrops(MixtureFiles(table), SIZE)[0, (0, 0)]

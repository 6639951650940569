"""Metadata of mixtures drawn from a corpus."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from etaflow.audio import AudioError, file_checksum
from etaflow.loudness import integrated_loudness
from etaflow.manifest import ManifestError
from etaflow.separation.metadata import generate_metadata, split_by_speaker
from etaflow.separation.mixing import (
    MetadataError,
    Mixture,
    Roots,
    metadata_columns,
    mix_row,
    read_metadata,
)

SPEAKERS, EACH = 5, 4
COLUMNS = ["utterance_id", "speaker_id", "path", "checksum"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for index in range(SPEAKERS * EACH):
        # Levels differ, and some utterances have a peak that no loudness leaves below 1.
        samples = generator.normal(0, 10 ** generator.uniform(-3, -1), 8_000 + 500 * index)
        if index % 3 == 0:
            samples *= 1e-3
            samples[4_000:4_003] = 0.5
        soundfile.write(folder / f"s{index // EACH}-{index % EACH}.wav", samples, 16_000, "FLOAT")
    (folder / "noise").mkdir()
    for index in range(3):
        samples = generator.normal(0, 0.05, (20_000, 2))
        soundfile.write(folder / f"noise/n{index}.wav", samples, 16_000)
    return Roots(folder, folder)


@pytest.fixture(scope="module")
def table(roots: Roots) -> pd.DataFrame:
    paths = sorted(roots.speech.glob("*.wav"))
    rows = [(path.stem, path.stem[:2], path.name, file_checksum(path)) for path in paths]
    return pd.DataFrame(rows, columns=COLUMNS)


def mixed(metadata: pd.DataFrame, roots: Roots) -> list[Mixture]:
    rows = metadata.to_dict("records")
    return [mix_row(row, roots, 16_000, "max", "both") for row in rows]


def uses(metadata: pd.DataFrame, name: str) -> Counter[str]:
    columns = [column for column in metadata if column.startswith(name.split("*")[0])]
    columns = [column for column in columns if column.endswith(name.split("*")[1])]
    return Counter(metadata[columns].to_numpy().ravel())


@pytest.mark.parametrize(("size", "count"), [(2, 11), (3, 7)])
def test_speakers_differ_and_all_are_used_alike(table, roots, size, count):
    metadata = generate_metadata(table, count, size, roots, 1, ["noise/n0.wav", "noise/n1.wav"])
    ids = [f"speaker_{index + 1}_ID" for index in range(size)]
    assert list(metadata.columns) == metadata_columns(size) + ids
    assert len(metadata) == metadata["mixture_ID"].nunique() == count
    assert (metadata[ids].nunique(axis=1) == size).all()
    for name, most in (("speaker_*_ID", SPEAKERS), ("source_*_path", SPEAKERS * EACH)):
        counts = uses(metadata, name)
        assert len(counts) == most
        assert max(counts.values()) - min(counts.values()) <= 1
    assert sorted(uses(metadata, "noise_*path").values()) == [count // 2, count - count // 2]
    for row in metadata.to_dict("records"):
        paths = [row[f"source_{index + 1}_path"] for index in range(size)]
        assert row["mixture_ID"] == "_".join(Path(path).stem for path in paths)
        assert [path[:2] for path in paths] == [row[name] for name in ids]


def test_loudness_is_in_the_published_ranges_and_peaks_at_most_at_0_9(table, roots):
    metadata = generate_metadata(table, 30, 2, roots, 2)
    clipped = 0
    for made in mixed(metadata, roots):
        assert np.abs(made.mixture).max() <= 0.9 + 1e-6
        levels = [integrated_loudness(part, 16_000) for part in (*made.sources, made.noise)]
        peaks = np.abs(np.stack([*made.sources, made.mixture])).max(axis=1)
        scaled = (peaks > 0.85).any()
        clipped += scaled
        if not scaled:
            assert all(-33.001 <= level <= -24.999 for level in levels[:2])
            assert -38.001 <= levels[2] <= -29.999
        else:
            assert np.abs(made.mixture).max() == pytest.approx(0.9, abs=1e-4) or (
                peaks[:2].max() == pytest.approx(0.9, abs=1e-4)
            )
    assert 3 < clipped < 30


def test_levels_fill_their_ranges(table, roots):
    quiet = table[~table["utterance_id"].isin(f"s{i // EACH}-{i % EACH}" for i in range(0, 20, 3))]
    made = mixed(generate_metadata(quiet, 40, 2, roots, 3), roots)
    speech = [integrated_loudness(part, 16_000) for each in made for part in each.sources]
    noise = [integrated_loudness(each.noise, 16_000) for each in made]
    assert (min(speech), max(speech)) == pytest.approx((-33, -25), abs=0.6)
    assert np.mean(speech) == pytest.approx(-29, abs=0.8)
    assert np.mean(noise) == pytest.approx(-34, abs=1.2)


def test_it_repeats_itself_and_another_seed_does_not(table, roots, tmp_path):
    first = generate_metadata(table, 8, 2, roots, 5)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(first, generate_metadata(shuffled, 8, 2, roots, 5))
    other = generate_metadata(table, 8, 2, roots, 6)
    assert set(first["mixture_ID"]) != set(other["mixture_ID"])
    assert not set(first["noise_path"]) & set(other["noise_path"])
    first.to_csv(tmp_path / "m.csv", index=False)
    read = read_metadata(tmp_path / "m.csv")
    assert read["source_1_gain"].tolist() == first["source_1_gain"].tolist()
    for one, again in zip(mixed(first, roots), mixed(read, roots), strict=True):
        np.testing.assert_array_equal(one.mixture, again.mixture)


def test_fewer_mixtures_are_the_first_of_more(table, roots):
    for noises in (None, ["noise/n0.wav", "noise/n1.wav", "noise/n2.wav"]):
        more = generate_metadata(table, 9, 2, roots, 5, noises)
        pd.testing.assert_frame_equal(generate_metadata(table, 4, 2, roots, 5, noises), more[:4])


def test_every_mixture_that_there_is_can_be_drawn(table, roots):
    few = table[table["speaker_id"].isin(["s1", "s2"]) & table["utterance_id"].str.match(".*-[01]")]
    metadata = generate_metadata(few, 4, 2, roots)
    assert len({frozenset(name.split("_")) for name in metadata["mixture_ID"]}) == 4
    with pytest.raises(MetadataError, match="5 mixtures asked for; after 4"):
        generate_metadata(few, 5, 2, roots)


def test_sides_of_a_split_share_no_speaker(table):
    parts = split_by_speaker(table, {"dev": 1, "test": 2}, 3)
    speakers = {name: set(part["speaker_id"]) for name, part in parts.items()}
    assert {name: len(own) for name, own in speakers.items()} == {"train": 2, "dev": 1, "test": 2}
    assert len(set.union(*speakers.values())) == SPEAKERS
    assert sum(len(part) for part in parts.values()) == len(table)
    again = split_by_speaker(table.iloc[::-1], {"dev": 1, "test": 2}, 3)
    assert {name: set(part["speaker_id"]) for name, part in again.items()} == speakers
    with pytest.raises(ManifestError, match="speakers"):
        split_by_speaker(table, {"test": SPEAKERS})
    with pytest.raises(ValueError, match="train"):
        split_by_speaker(table, {"train": 1})


def test_what_cannot_be_drawn_is_refused(table, roots):
    with pytest.raises(MetadataError, match="mixtures of 6 speakers, and there are 5"):
        generate_metadata(table, 1, 6, roots)
    with pytest.raises(MetadataError, match="at least one mixture of at least two"):
        generate_metadata(table, 1, 1, roots)
    with pytest.raises(MetadataError, match="at least one mixture of at least two"):
        generate_metadata(table, 0, 2, roots)
    with pytest.raises(MetadataError, match="list of noises is empty"):
        generate_metadata(table, 1, 2, roots, noises=[])


def test_files_that_changed_or_are_missing_or_silent_are_refused(table, roots, tmp_path):
    two = table[table["utterance_id"].isin(["s0-0", "s1-0"])].copy()
    for name in two["path"]:
        (tmp_path / name).write_bytes((roots.speech / name).read_bytes())
    soundfile.write(tmp_path / "s1-0.wav", np.full(9_000, 1e-6), 16_000, "FLOAT")
    here = Roots(tmp_path)
    with pytest.raises(AudioError, match=r"s1-0\.wav: changed since its manifest"):
        generate_metadata(two, 1, 2, here)
    two.loc[two["utterance_id"] == "s1-0", "checksum"] = file_checksum(tmp_path / "s1-0.wav")
    with pytest.raises(MetadataError, match=r"s1-0\.wav: below -70 LUFS"):
        generate_metadata(two, 1, 2, here)
    (tmp_path / "s1-0.wav").unlink()
    with pytest.raises(AudioError, match=r"s1-0\.wav: unreadable"):
        generate_metadata(two, 1, 2, here)

"""Training items of speaker encoders."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from etaflow.audio import file_checksum, write_audio
from etaflow.speaker.augment import Augmentation
from etaflow.speaker.utterances import SpeakerUtterances
from etaflow.training.batches import Batches
from etaflow.waveforms import Waveforms, random_crop

UTTERANCES = {"b": ["b0", "b1"], "a": ["a0", "a1", "a2", "a3", "a4"], "c": ["c0"]}
LONG, SHORT = 3_000, 1_700


@pytest.fixture
def waveforms(tmp_path: Path) -> Waveforms:
    """Each sample says where it stands; those of speaker c are shorter than a crop."""
    files = {}
    for names in UTTERANCES.values():
        for name in names:
            size = SHORT if name == "c0" else LONG
            ramp = (np.arange(size) / 32_768).astype(np.float32)
            write_audio(tmp_path / f"{name}.wav", ramp)
            files[name] = (tmp_path / f"{name}.wav", file_checksum(tmp_path / f"{name}.wav"))
    return Waveforms(files)


def test_an_item_is_a_speaker_and_crops_of_some_of_their_utterances(waveforms: Waveforms) -> None:
    dataset = SpeakerUtterances(UTTERANCES, waveforms, 3, 2_000)
    assert (len(dataset), dataset.speakers) == (3, ["a", "b", "c"])
    starts, seen = set(), Counter[str]()
    for seed in range(40):
        item = dataset[0, (7, seed)]
        names = item["utterance_id"].split(" ")
        assert item["label"] == 0
        assert item["waveforms"].shape == (3, 2_000)
        assert item["waveforms"].dtype == torch.float32
        assert len(set(names)) == 3 <= len(UTTERANCES["a"])
        seen.update(names)
        places = (item["waveforms"] * 32_768).round().long()
        assert torch.equal(places - places[:, :1], torch.arange(2_000).expand(3, -1))
        starts |= set(places[:, 0].tolist())
    assert set(seen) == set(UTTERANCES["a"])
    assert min(seen.values()) > 12  # of 24 on average
    assert len(starts) > 100
    assert 0 <= min(starts) <= max(starts) <= 1_000


def test_all_utterances_of_a_speaker_come_once_before_any_twice(waveforms: Waveforms) -> None:
    dataset = SpeakerUtterances(UTTERANCES, waveforms, 5, 2_000)
    for seed in range(10):
        counts = Counter(dataset[1, seed]["utterance_id"].split(" "))
        assert sorted(counts.values()) == [2, 3]
    item = dataset[2, 0]
    assert item["utterance_id"] == "c0 c0 c0 c0 c0"


def test_a_short_utterance_is_repeated_until_it_fills_the_crop(waveforms: Waveforms) -> None:
    (crop,) = SpeakerUtterances(UTTERANCES, waveforms, 1, 4_000)[2, 3]["waveforms"]
    whole = waveforms.read("c0")
    assert np.array_equal(crop.numpy(), np.concatenate([whole, whole, whole])[:4_000])
    generator = np.random.default_rng(0)
    assert np.array_equal(random_crop(whole, SHORT, generator), whole)


def test_an_item_is_a_function_of_its_seed_and_crops_are_not_alike(
    waveforms: Waveforms, tmp_path: Path
) -> None:
    augmentation = Augmentation({"speed": {"factors": [0.9, 1.1]}})
    for dataset in (
        SpeakerUtterances(UTTERANCES, waveforms, 4, 1_000),
        SpeakerUtterances(UTTERANCES, waveforms, 4, 1_000, augmentation),
    ):
        first, again, other = dataset[0, (3, 1)], dataset[0, (3, 1)], dataset[0, (3, 2)]
        assert first["utterance_id"] == again["utterance_id"]
        assert torch.equal(first["waveforms"], again["waveforms"])
        assert not torch.equal(first["waveforms"], other["waveforms"])


def test_batches_are_the_same_with_and_without_workers(waveforms: Waveforms) -> None:
    dataset = SpeakerUtterances(UTTERANCES, waveforms, 2, 1_000)
    runs = [
        list(DataLoader(dataset, batch_sampler=Batches(3, 2, 5, 0, 4), num_workers=workers))
        for workers in (0, 2)
    ]
    for one, other in zip(*runs, strict=True):
        assert one["waveforms"].shape == (2, 2, 1_000)
        assert one["utterance_id"] == other["utterance_id"]
        assert torch.equal(one["waveforms"], other["waveforms"])
        assert torch.equal(one["label"], other["label"])
    labels = torch.cat([each["label"] for each in runs[0]]).tolist()
    assert sorted(labels[:3]) == sorted(labels[3:6]) == [0, 1, 2]


def test_speakers_without_utterances_are_named(waveforms: Waveforms) -> None:
    with pytest.raises(ValueError, match="no utterance of d to train on"):
        SpeakerUtterances({**UTTERANCES, "d": []}, waveforms, 2, 1_000)
    with pytest.raises(ValueError, match="no utterance of any speaker"):
        SpeakerUtterances({}, waveforms, 2, 1_000)

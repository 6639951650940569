"""Masked prediction of clusters: codes, crops, masks, targets and measures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch.nn import functional as F

from etaflow.pitch import BINS, from_bins, pitch_loss
from etaflow.ssl.pretraining.codes import (
    Codes,
    CodesError,
    fit_clusters,
    mfcc,
    nearest_codes,
    standardised,
)
from etaflow.ssl.pretraining.crops import BANDS, IGNORED, Crops, coloured_noise
from etaflow.ssl.pretraining.measures import neighbour_error, phone_information
from etaflow.ssl.pretraining.network import PretrainingNetwork, new_wavlm
from etaflow.ssl.pretraining.task import (
    SPAN,
    PretrainingTask,
    Validation,
    draw_mask,
    judge,
    pitch_error,
    spectrum_error,
)
from tests.pitch_tools import buzz
from tests.pretraining_tools import SIZES, Recordings, noise


@pytest.mark.parametrize("size", [400, 719, 720, 5000])
def test_there_are_as_many_cepstra_as_frames_of_wavlm(size: int) -> None:
    assert mfcc(noise(size)).shape == ((size - 400) // 320 + 1, 39)


def test_cepstra_are_of_a_frame_and_their_differences_of_its_neighbours() -> None:
    quiet, loud = noise(320 * 20 + 80), noise(320 * 20 + 80)
    loud[320 * 10 + 160 : 320 * 10 + 240] += noise(80, seed=1) * 30  # within frame 10 alone
    changed = np.abs(mfcc(loud) - mfcc(quiet)) > 1e-3
    assert np.flatnonzero(changed[:, :13].any(axis=1)).tolist() == [10]
    assert np.flatnonzero(changed[:, 13:26].any(axis=1)).tolist() == [8, 9, 11, 12]


def test_differences_are_the_slope_over_five_frames() -> None:
    found = mfcc(noise(320 * 12 + 80))
    cepstra, first = found[:, :13], found[:, 13:26]
    middle = sum(n * (cepstra[6 + n] - cepstra[6 - n]) for n in (1, 2)) / 10
    assert first[6] == pytest.approx(middle, abs=1e-4)


def test_standardised_frames_have_no_mean_and_unit_variance() -> None:
    frames = np.random.default_rng(0).normal([3, -2], [0.1, 9], (50, 2))
    found = standardised(frames)
    assert found.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert found.std(axis=0) == pytest.approx([1, 1], abs=1e-3)
    assert standardised(np.ones((4, 2))).tolist() == [[0, 0]] * 4


@given(st.integers(0, 1000))
def test_the_nearest_code_is_that_of_the_smallest_distance(seed: int) -> None:
    random = np.random.default_rng(seed)
    frames, centres = random.normal(size=(9, 3)), random.normal(size=(5, 3))
    distances = np.linalg.norm(frames[:, None] - centres, axis=2)
    assert nearest_codes(frames, centres).tolist() == distances.argmin(axis=1).tolist()


def test_clusters_are_where_the_frames_are() -> None:
    random = np.random.default_rng(0)
    places = np.array([[0, 0], [10, 0], [0, 10]])
    frames = [random.normal(place, 0.1, (40, 2)) for place in places]
    centres = fit_clusters(frames, 3, seed=1)
    assert sorted(np.round(centres).tolist()) == sorted(places.tolist())
    assert (fit_clusters(frames, 3, seed=1) == centres).all()
    with pytest.raises(CodesError, match="120 frames for 121 clusters: take more utterances"):
        fit_clusters(frames, 121, seed=1)


def test_codes_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = {"b": np.array([3, 1], np.int16), "a": np.array([0], np.int16)}
    Codes.of(4, found.items(), {"kind": "mfcc"}).write(tmp_path / "codes.safetensors")
    read = Codes.read(tmp_path / "codes.safetensors")
    assert (read.clusters, read.origin) == (4, {"kind": "mfcc"})
    assert [(name, codes.tolist()) for name, codes in read.items()] == [("b", [3, 1]), ("a", [0])]


def test_what_holds_no_codes_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CodesError, match=r"missing.safetensors: not readable codes"):
        Codes.read(tmp_path / "missing.safetensors")
    save_file({"codes": np.zeros(3, np.int16)}, tmp_path / "other.safetensors")
    with pytest.raises(CodesError, match=r"other.safetensors: not readable codes"):
        Codes.read(tmp_path / "other.safetensors")


def crops_of(frames: dict[str, int], num_frames: int, **overlaid: float) -> Crops:
    """Crops of utterances whose frame i has the code i and starts with the sample i."""
    waveforms, codes = {}, {}
    for name, count in frames.items():
        waveforms[name] = np.repeat(np.arange(count + 1, dtype=np.float32), 320)[: 320 * count + 80]
        codes[name] = np.arange(count, dtype=np.int16)
    probabilities = {"speech": 0.0, "noise": 0.0} | overlaid
    return Crops(codes, Recordings(waveforms), list(frames), num_frames, probabilities)


def test_a_crop_has_the_codes_of_its_own_frames() -> None:
    crops = crops_of({"a": 30}, 8)
    whole = crops.whole("a")
    assert (whole.mean(), whole.std()) == pytest.approx((0, 1), abs=1e-4)
    firsts = set()
    for seed in range(40):
        item = crops[0, (0, seed)]
        first = int(item["codes"][0])
        firsts.add(first)
        assert item["codes"].tolist() == list(range(first, first + 8))
        assert item["waveform"].shape == (320 * 8 + 80,)
        start = first * 320
        assert item["waveform"].numpy() == pytest.approx(whole[start : start + 320 * 8 + 80])
    assert {0, 22} <= firsts <= set(range(23))


def test_what_is_too_short_is_padded_by_what_has_no_codes() -> None:
    item = crops_of({"a": 5}, 8)[0, (0, 0)]
    assert item["codes"].tolist() == [0, 1, 2, 3, 4, *[IGNORED] * 3]
    assert (item["waveform"][320 * 5 + 80 :] == 0).all()
    assert (item["waveform"][: 320 * 5 + 80] != 0).all()


@pytest.mark.parametrize(("kind", "lowest", "highest"), [("speech", -5, 5), ("noise", -5, 20)])
def test_up_to_half_of_a_crop_is_overlaid_and_its_codes_stay(
    kind: str, lowest: float, highest: float
) -> None:
    names = {"a": 40, "b": 40}
    plain, overlaid = crops_of(names, 40), crops_of(names, 40, **{kind: 1.0})
    ratios = []
    for seed in range(60):
        clean, found = plain[0, (0, seed)], overlaid[0, (0, seed)]
        assert (found["codes"] == clean["codes"]).all()
        added = (found["waveform"] - clean["waveform"]).numpy()
        places = np.flatnonzero(added)
        assert 0 < len(places) <= len(added) // 2
        if len(places) > 3000:  # else a part of the other utterance may be as good as silent
            part = added[places[0] : places[-1] + 1]
            power = np.mean(clean["waveform"].numpy() ** 2) / np.mean(part**2)
            ratios.append(10 * np.log10(power))
        again = overlaid[0, (0, seed)]["waveform"]
        assert torch.equal(again, found["waveform"])
    assert lowest - 0.1 < min(ratios) < lowest + 3
    assert highest - 3 < max(ratios) < highest + 0.1


def test_half_of_the_crops_are_overlaid_at_a_probability_of_a_half() -> None:
    plain = crops_of({"a": 40, "b": 40}, 40)
    some = crops_of({"a": 40, "b": 40}, 40, speech=0.25, noise=0.25)
    changed = [
        not torch.equal(plain[0, (0, seed)]["waveform"], some[0, (0, seed)]["waveform"])
        for seed in range(400)
    ]
    assert sum(changed) == pytest.approx(200, abs=40)


def test_noise_has_unit_power_and_falls_at_most_as_brown_noise_does() -> None:
    slopes = []
    for seed in range(20):
        drawn = coloured_noise(16_000, np.random.default_rng(seed))
        assert np.mean(drawn**2) == pytest.approx(1, rel=1e-4)
        power = np.abs(np.fft.rfft(drawn))[10:4000] ** 2
        slopes.append(np.polyfit(np.log(np.arange(10, 4000)), np.log(power), 1)[0])
    assert -2.1 < min(slopes) < -1.5
    assert -0.5 < max(slopes) < 0.1


@pytest.mark.parametrize("probability", [0.01, 0.65, 1.0])
def test_masks_are_spans_of_ten_in_each_row(probability: float) -> None:
    torch.manual_seed(0)
    masked = draw_mask((2000, 50), probability)
    assert masked.any(dim=1).all()
    for row in masked[:200].int().tolist():
        runs = "".join(map(str, row)).strip("0").split("0")
        # One that starts late is cut by the end.
        cut = len(row) - 1 if row[-1] else None
        assert all(len(run) >= SPAN for run in filter(None, runs[: -1 if cut else None]))
    expected = {0.01: 0.2, 0.65: 0.45, 1.0: 0.6}[probability]
    assert float(masked.float().mean()) == pytest.approx(expected, abs=0.05)


def test_only_the_frames_asked_for_are_judged_and_no_padding() -> None:
    scores = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 9.0]]])
    codes = torch.tensor([[0, 0, 1, IGNORED]])
    asked = torch.tensor([[True, True, False, True]])
    loss, accuracy = judge(scores, codes, asked)
    expected = (np.log(1 + np.exp(-2)) + np.log(1 + np.exp(1))) / 2
    assert (float(loss), float(accuracy)) == pytest.approx((expected, 0.5))
    loss, accuracy = judge(scores, codes, ~asked)
    assert (float(loss), float(accuracy)) == pytest.approx((np.log(1 + np.exp(5)), 0.0))


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.3, 0.2)])
def test_seen_frames_their_pitch_and_spectrum_are_learnt_by_their_weights(
    weights: tuple[float, float, float],
) -> None:
    weight, pitch_weight, spectrum_weight = weights
    torch.manual_seed(0)
    network = PretrainingNetwork(new_wavlm(SIZES), clusters=7)
    crops = Crops(
        {"a": np.arange(25, dtype=np.int16) % 7},
        Recordings({"a": buzz(np.full(320 * 25 + 80, 150.0))}),
        ["a"],
        20,
        {"speech": 0.0, "noise": 0.0},
    )
    validation = Validation(crops, {}, {}, seed=0)
    task = PretrainingTask(network, crops, validation, 2, 0.65, *weights, 1e-3, lambda step: 1.0)
    items = [crops[0, (0, seed)] for seed in range(2)]
    batch = torch.utils.data.default_collate(items)
    torch.manual_seed(1)
    seen_frames = ~draw_mask((2, 20), 0.65)
    heard = batch["voiced"] & seen_frames
    assert heard.any()
    with torch.no_grad():
        torch.manual_seed(1)
        _, pitches, spectra = network(batch["waveform"], draw_mask((2, 20), 0.65))
    torch.manual_seed(1)
    minimised = []

    class Trainer:
        def update(self, name: str, loss: torch.Tensor) -> None:
            assert name == "network"
            minimised.append(loss.item())

    losses = task.training_step(batch, 0, Trainer())
    seen = losses["seen_loss"].item() if weight else 0.0
    assert ("seen_loss" in losses) == (weight > 0)
    assert ("pitch_loss" in losses) == (pitch_weight > 0)
    assert ("spectrum_loss" in losses) == (spectrum_weight > 0)
    spectrum = (spectra - batch["spectrum"])[seen_frames].abs().mean().item()
    pitch = pitch_loss(pitches, batch["pitch"], heard).item()
    expected = losses["loss"].item() + weight * seen + pitch_weight * pitch
    expected += spectrum_weight * spectrum
    assert minimised == [pytest.approx(expected, rel=1e-5)]


def test_the_spectrum_of_a_crop_is_that_of_its_clean_frames() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(320 * 30 + 80) / 16_000).astype(np.float32)
    tone[: 320 * 10] *= 0.01
    codes, noisy = {"a": np.arange(30, dtype=np.int16)}, {"speech": 0.0, "noise": 1.0}
    item = Crops(codes, Recordings({"a": tone}), ["a"], 40, noisy)[0, (0, 0)]
    spectrum = item["spectrum"]
    assert spectrum.shape == (40, BANDS)
    floor = float(np.log(0.1))
    assert spectrum[31:].numpy() == pytest.approx(floor)  # padding: silence
    # Bands are even on the mel scale from 20 Hz to 8 kHz; 1 kHz is at 1000 mel of Kaldi's.
    mels = 1127 * np.log1p(np.array([20, 1000, 8000]) / 700)
    band = (mels[1] - mels[0]) / (mels[2] - mels[0]) * (BANDS + 1) - 1
    assert set(spectrum[:30].argmax(dim=1).tolist()) == {round(band)}
    loud, quiet = spectrum[15, round(band)], spectrum[5, round(band)]
    assert float(loud - quiet) == pytest.approx(2 * np.log(100), abs=0.1)


def test_a_spectrum_is_wrong_by_what_its_bands_are_off_on_the_average() -> None:
    spectra, targets = torch.zeros(1, 3, BANDS), torch.zeros(1, 3, BANDS)
    targets[0, 0], targets[0, 1, :8], targets[0, 2] = 2.0, -5.0, 99.0
    asked = torch.tensor([[True, True, False]])
    assert spectrum_error(spectra, targets, asked) == pytest.approx((2 + 5 * 8 / BANDS) / 2)
    assert spectrum_error(spectra, targets, torch.zeros_like(asked)) == 0


def test_the_pitch_of_a_crop_is_that_of_its_frames() -> None:
    # From 100 Hz to 200 Hz in 60 frames; frame i is around the sample 320 i + 200.
    pitch = np.linspace(100, 200, 320 * 60 + 80)
    crops = Crops(
        {"a": np.arange(60, dtype=np.int16)},
        Recordings({"a": buzz(pitch)}),
        ["a"],
        80,
        {"speech": 0.0, "noise": 1.0},
    )
    item = crops[0, (0, 0)]
    assert not item["voiced"][60:].any()
    inner = slice(2, 58)  # of the outer ones a part of the window is empty
    assert item["voiced"][inner].all()
    middles = np.interp(320 * np.arange(60) + 200, np.arange(len(pitch)), pitch)
    assert item["pitch"][inner].numpy() == pytest.approx(middles[inner], rel=0.01)


def test_a_pitch_is_wrong_when_it_is_more_than_a_semitone_off() -> None:
    places = torch.tensor([[10, 10, 10, 10, 30]])
    scores = F.one_hot(places, BINS) * 50.0
    right = from_bins(torch.tensor([[10.0]]))
    pitch = right * 2 ** (torch.tensor([[0, 0.9, -1.1, 12, 0]]) / 12)
    voiced = torch.tensor([[True, True, True, True, False]])
    assert pitch_error(scores, pitch, voiced) == pytest.approx(2 / 4)
    assert pitch_error(scores, pitch, torch.zeros_like(voiced)) == 0


def test_clusters_that_are_phones_tell_all_and_noise_tells_nothing() -> None:
    random = np.random.default_rng(0)
    phones = random.integers(0, 20, 4000)
    apart = np.eye(20)[phones] * 10 + random.normal(size=(4000, 20)) * 0.01
    assert phone_information(apart, phones) == pytest.approx(1.0, abs=0.05)
    assert phone_information(random.normal(size=(4000, 20)), phones) < 0.1


def test_the_neighbour_is_sought_among_other_speakers() -> None:
    features = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1], [2.0, 0.1]])
    phones = np.array(["a", "b", "a", "b", "a"])
    speakers = np.array(["x", "x", "y", "y", "y"])
    # To 0 and 1 the nearest of y is 4 (a); to 2 and 4 of x are 1 (b) and 0 (a); to 3 it is 1 (b).
    assert neighbour_error(features, phones, speakers) == pytest.approx(2 / 5)

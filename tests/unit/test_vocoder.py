"""The generator, its losses and its data, against plain references and known figures."""

import json
import math
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from etaflow.audio import AudioError, read_audio, write_audio
from etaflow.manifest import hold_out
from etaflow.store import FeatureMeta, FeatureStore, FeatureWriter
from etaflow.vocoder import (
    Generator,
    GeneratorConfig,
    HarmonicConfig,
    IstftConfig,
    VocoderError,
    log_mel,
)
from etaflow.vocoder.discriminator import Discriminator, DiscriminatorConfig
from etaflow.vocoder.generator import WEIGHTS
from etaflow.vocoder.mel import mel_loss
from etaflow.vocoder.segments import JoinedSegments, Segments
from etaflow.vocoder.task import (
    VocoderTask,
    adversarial_loss,
    discriminator_loss,
    matching_loss,
    split_judgements,
)
from etaflow.waveforms import Waveforms
from tests.vocoder_tools import with_checksums

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = GeneratorConfig(
    feature_dim=6,
    hidden_dim=8,
    upsample_channels=16,
    resblock_kernels=(3, 7),
    resblock_dilations=((1, 3, 5), (1, 3, 5)),
)
ISTFT = IstftConfig(
    feature_dim=6, hidden_dim=8, intermediate_dim=16, blocks=4, n_fft=640, upsample=2
)
HARMONIC = HarmonicConfig(
    feature_dim=6, hidden_dim=8, intermediate_dim=16, blocks=2, kernel=3, bands=8
)
Config = GeneratorConfig | IstftConfig | HarmonicConfig
TINY = DiscriminatorConfig(width=1 / 16, periods=(2, 3), scales=1)


def make_generator(config: Config = SMALL) -> Generator:
    torch.manual_seed(0)
    return Generator(config).eval()


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[FeatureStore, Waveforms]:
    """Three utterances of 30, 12 and 4 frames whose features and samples count frames."""
    frames = {"long": 30, "middle": 12, "short": 4}
    meta = FeatureMeta("tiny", "0", 2, False, 16_000, 320)
    paths = {}
    samples = {name: 320 * count + 90 for name, count in frames.items()}
    with FeatureWriter(
        tmp_path / "0.h5", meta, list(frames), ["s"] * 3, list(samples.values()), [30, 12, 4], 6
    ) as writer:
        for name, count in frames.items():
            writer.write(name, np.repeat(np.arange(count, dtype=np.float32)[:, None], 6, axis=1))
            paths[name] = tmp_path / f"{name}.wav"
            write_audio(paths[name], (np.arange(samples[name]) // 320 / 100).astype(np.float32))
    return FeatureStore([tmp_path / "0.h5"]), Waveforms(with_checksums(paths))


def test_knn_vc_size_has_its_published_parameters() -> None:
    generator = Generator(GeneratorConfig(feature_dim=1024))
    assert generator.num_parameters() == 16_523_393
    assert sum(parameter.numel() for parameter in generator.parameters()) == 16_523_393 + 10_113
    generator.network.hifigan.remove_weight_norm()
    assert sum(parameter.numel() for parameter in generator.parameters()) == 16_523_393


@pytest.mark.parametrize("config", [SMALL, ISTFT, HARMONIC])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2), (2, 41)])
def test_a_frame_becomes_320_samples(config: Config, batch: int, frames: int) -> None:
    with torch.no_grad():
        waveform = make_generator(config)(torch.randn(batch, frames, 6))
    assert waveform.shape == (batch, 1, 320 * frames)
    assert waveform.abs().max() <= 1


def plain_generator(generator: Generator, features: torch.Tensor) -> torch.Tensor:
    """HiFi-GAN as kNN-VC writes it down: zero padding, slopes 0.1 and, last, 0.01."""

    def conv(x: torch.Tensor, layer: Any, dilation: int = 1) -> torch.Tensor:
        padding = dilation * (layer.conv.weight.shape[2] - 1) // 2
        return F.conv1d(x, layer.conv.weight, layer.conv.bias, padding=padding, dilation=dilation)

    config, net = generator.config, generator.network.hifigan
    x = features @ generator.network.lin_pre.weight.T + generator.network.lin_pre.bias
    x = conv(x.transpose(1, 2), net.conv_pre)
    blocks = iter(net.resblocks)
    for up, factor, kernel in zip(
        net.ups, config.upsample_factors, config.upsample_kernels, strict=True
    ):
        x = F.leaky_relu(x, 0.1)
        x = F.conv_transpose1d(
            x, up.conv.weight, up.conv.bias, stride=factor, padding=(kernel - factor) // 2
        )
        outputs = []
        for dilations in config.resblock_dilations:
            block, y = next(blocks), x
            for first, second, dilation in zip(block.convs1, block.convs2, dilations, strict=True):
                inner = conv(F.leaky_relu(y, 0.1), first, dilation)
                y = y + conv(F.leaky_relu(inner, 0.1), second)
            outputs.append(y)
        x = sum(outputs) / len(outputs)
    return torch.tanh(conv(F.leaky_relu(x, 0.01), net.conv_post))


@pytest.mark.parametrize("frames", [1, 17])
def test_generator_is_knn_vcs_to_the_edges(frames: int) -> None:
    generator = make_generator()
    features = torch.randn(2, frames, 6)
    with torch.no_grad():
        expected = plain_generator(generator, features)
        torch.testing.assert_close(generator(features), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", [SMALL, ISTFT, HARMONIC])
def test_generator_returns_from_its_folder(tmp_path: Path, config: Config) -> None:
    generator = make_generator(config)
    generator.save_pretrained(tmp_path, model="tiny", layer=2, normalize=False, steps=7)
    again = Generator.from_pretrained(tmp_path)
    features = torch.randn(1, 9, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(features), generator(features), atol=1e-6, rtol=0)
    assert again.config == config
    assert again.num_parameters() == generator.num_parameters()
    assert again.trained_on == {"model": "tiny", "layer": 2, "normalize": False, "steps": 7}
    assert not again.training
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generator.safetensors",
    ]


@pytest.mark.parametrize("config", [SMALL, ISTFT, HARMONIC])
def test_weights_in_half_precision_are_read_as_float32(tmp_path: Path, config: Config) -> None:
    generator = make_generator(config)
    generator.save_pretrained(tmp_path / "whole")
    generator.save_pretrained(tmp_path / "half", dtype=torch.float16)
    whole, half = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "half"))
    assert {value.dtype for value in half.values()} == {torch.float16}
    again = Generator.from_pretrained(tmp_path / "half")
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, whole[name].half().float())
    assert again.trained_on == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pitch": 1}, r"unknown key\(s\) pitch"),
        ({"feature_dim": None}, r"missing key\(s\) feature_dim"),
        ({"hidden_dim": 9}, r"lin_pre\.weight"),
        ({"upsample_kernels": [20, 16, 4]}, "one upsample kernel a factor"),
        ({"upsample_kernels": [20, 16, 4, 3]}, "larger by an even number"),
        ({"resblock_kernels": [3, 8]}, "odd kernels"),
        ({"resblock_dilations": [[1, 3, 5]]}, "one tuple of dilations"),
        ({"upsample_channels": 24}, "multiple of 16"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, change: dict, named: str) -> None:
    make_generator().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["generator"] |= change
    config["generator"] = {k: v for k, v in config["generator"].items() if v is not None}
    path.write_text(json.dumps(config))
    with pytest.raises(VocoderError, match=named):
        Generator.from_pretrained(tmp_path)


def test_a_missing_file_and_other_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(VocoderError, match=r"config\.json"):
        Generator.from_pretrained(tmp_path)
    generator = make_generator()
    generator.network.extra = torch.nn.Linear(1, 1)
    generator.save_pretrained(tmp_path)
    with pytest.raises(VocoderError, match=r"extra\.weight"):
        Generator.from_pretrained(tmp_path)


def test_log_mel_is_librosas() -> None:
    waveform = np.random.default_rng(0).standard_normal(3200).astype(np.float32) * 0.1
    expected = librosa.feature.melspectrogram(
        y=np.pad(waveform, 352, mode="reflect"),
        sr=16_000,
        n_fft=1024,
        hop_length=320,
        center=False,
        power=1.0,
        n_mels=80,
        fmax=8000,
    )
    mel = log_mel(torch.from_numpy(waveform)[None])
    assert mel.shape == (1, 80, 10)
    np.testing.assert_allclose(mel[0].numpy(), np.log(np.maximum(expected, 1e-5)), atol=1e-4)


def test_log_mel_of_silence_is_its_floor_and_short_input_is_an_error() -> None:
    silence = log_mel(torch.zeros(2, 640))
    assert torch.equal(silence, torch.full((2, 80, 2), 1e-5).log())
    with pytest.raises(ValueError, match="T > 352"):
        log_mel(torch.zeros(1, 352))


def test_discriminators_have_the_published_size() -> None:
    from speechbrain.lobes.models.HifiGAN import HifiganDiscriminator

    ours, reference = Discriminator(DiscriminatorConfig()), HifiganDiscriminator()
    shapes = [
        sorted(tuple(parameter.shape) for parameter in module.parameters())
        for module in (ours.periods, reference.mpd, ours.scales, reference.msd)
    ]
    assert shapes[0] == shapes[1]
    assert shapes[2] == shapes[3]


def test_scale_discriminators_are_hifigans() -> None:
    from speechbrain.lobes.models.HifiGAN import HifiganDiscriminator

    ours, reference = Discriminator(DiscriminatorConfig(periods=())), HifiganDiscriminator().msd
    # The first is not compared: its spectral norm starts from random vectors.
    ours.scales[1:].load_state_dict(reference.discriminators[1:].state_dict())
    waveform = torch.randn(1, 1, 1600)
    with torch.no_grad():
        scores, maps = reference(waveform)
        judged = ours(waveform)
    for index in (1, 2):
        torch.testing.assert_close(judged[index][0], scores[index])
        for layer, expected in zip(judged[index][1], maps[index], strict=True):
            torch.testing.assert_close(layer, expected)


def test_a_period_discriminator_sees_each_period_alone() -> None:
    (period,) = Discriminator(DiscriminatorConfig(1 / 16, (5,), 0)).periods
    waveform = torch.randn(1, 1, 200)
    changed = waveform.clone()
    changed[..., 2::5] = 0
    with torch.no_grad():
        difference = (period(waveform)[0] - period(changed)[0]).reshape(-1, 5).abs().sum(0)
    assert (difference > 0).tolist() == [False, False, True, False, False]


def test_losses_on_paper() -> None:
    real = [(torch.tensor([1.0, 0.0]), [torch.tensor([1.0, 2.0]), torch.tensor([0.0])])]
    fake = [(torch.tensor([0.5, 0.5]), [torch.tensor([0.0, 4.0]), torch.tensor([3.0])])]
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 + 0.25)
    assert discriminator_loss(real * 2, fake * 2).item() == pytest.approx(1.5)
    assert adversarial_loss(fake).item() == pytest.approx(0.25)
    assert matching_loss(real, fake).item() == pytest.approx(1.5 + 3)


def test_segments_pair_frames_with_their_samples(corpus: tuple[FeatureStore, Waveforms]) -> None:
    segments = Segments(*corpus, ["long", "middle"], 10)
    starts = set()
    for seed in range(200):
        item = segments[0, (0, seed)]
        first = float(item["features"][0, 0])
        starts.add(first)
        assert item["features"].shape == (10, 6)
        assert item["features"][:, 0].tolist() == [first + i for i in range(10)]
        expected = (np.arange(3200) // 320 + first) / 100
        np.testing.assert_allclose(item["waveform"].numpy(), expected, atol=1e-4)
    assert starts == set(range(21))  # the last segment too
    again = segments[0, (0, 3)]
    assert torch.equal(again["features"], segments[0, (0, 3)]["features"])


def test_short_utterances_are_padded_on_the_right(corpus: tuple[FeatureStore, Waveforms]) -> None:
    segments = Segments(*corpus, ["short", "long"], 10)
    assert segments.num_padded == 1
    assert segments[1, (0, 0)]["num_samples"] == 3200
    item = segments[0, (0, 0)]
    assert item["utterance_id"] == "short"
    assert item["features"][:, 0].tolist() == [0, 1, 2, 3, 0, 0, 0, 0, 0, 0]
    assert item["waveform"].shape == (3200,)
    assert float(item["waveform"][1279]) == pytest.approx(0.03, abs=1e-4)
    assert item["num_samples"] == 1280
    assert float(item["waveform"][1280:].abs().max()) == 0


def test_joined_segments_are_those_of_each_part(corpus: tuple[FeatureStore, Waveforms]) -> None:
    parts = [Segments(*corpus, names, 10) for names in (["short", "long"], ["long"])]
    joined = JoinedSegments(parts)
    assert (len(joined), joined.num_padded) == (3, 1)
    for index, (part, place) in enumerate([(0, 0), (0, 1), (1, 0)]):
        found, expected = joined[index, (0, 7)], parts[part][place, (0, 7)]
        assert found["utterance_id"] == expected["utterance_id"]
        assert torch.equal(found["features"], expected["features"])


def test_a_full_cache_reads_from_disk(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.wav" for name in "ab"}
    for value, path in enumerate(paths.values()):
        write_audio(path, np.full(1600, value / 4, dtype=np.float32))
    waveforms = Waveforms(with_checksums(paths), cache_bytes=4 * 1600)
    first = waveforms.read("a")
    assert waveforms.read("a") is first
    assert waveforms.read("b") is not waveforms.read("b")
    np.testing.assert_array_equal(waveforms.read("b"), read_audio(paths["b"]))
    write_audio(paths["b"], np.full(1600, 0.1, dtype=np.float32))
    with pytest.raises(AudioError, match=r"b\.wav: changed since its manifest was made"):
        waveforms.read("b")


def test_hold_out_splits_by_seed() -> None:
    names = [f"u{i}" for i in range(9)]
    train, held = hold_out(names, 3, seed=1)
    assert len(held) == 3
    assert sorted(train + held) == names
    assert hold_out(names, 3, seed=1) == (train, held)
    assert any(hold_out(names, 3, seed=seed)[1] != held for seed in range(2, 6))
    for count in (0, 9):
        with pytest.raises(ValueError, match=f"cannot hold {count} of 9"):
            hold_out(names, count, seed=1)


class Alone:
    """Stands for a `Trainer`."""

    def __init__(self, task: VocoderTask) -> None:
        self.task = task

    def plain(self, name: str) -> torch.nn.Module:
        return self.task.modules[name]

    def update(self, name: str, loss: torch.Tensor) -> None:
        self.task.optimizers[name].zero_grad()
        loss.backward()
        self.task.optimizers[name].step()


def make_task(
    corpus: tuple[FeatureStore, Waveforms],
    config: Config = SMALL,
    **changes: Any,
) -> VocoderTask:
    options = {"segment_frames": 8, "batch_size": 2, "lr_decay": 0.5, **changes}
    return VocoderTask(
        make_generator(config).train(), TINY, *corpus, ["long", "middle"], ["short"], **options
    )


def step_of(task: VocoderTask, step: int) -> dict[str, float]:
    items = [task.dataset[index, (0, index)] for index in range(2)]
    batch = torch.utils.data.default_collate(items)
    losses = task.training_step(batch, step, Alone(task))
    return {name: loss.item() for name, loss in losses.items()}


def weights_of(task: VocoderTask, name: str) -> torch.Tensor:
    return torch.cat([p.detach().clone().flatten() for p in task.modules[name].parameters()])


def test_discriminators_join_when_they_should(corpus: tuple[FeatureStore, Waveforms]) -> None:
    task = make_task(corpus, adversarial_from=1)
    generator, discriminator = weights_of(task, "generator"), weights_of(task, "discriminator")
    assert step_of(task, 0).keys() == {"mel_loss"}
    assert torch.equal(weights_of(task, "discriminator"), discriminator)
    assert not torch.equal(weights_of(task, "generator"), generator)
    names = {"mel_loss", "discriminator_loss", "adversarial_loss", "matching_loss"}
    assert step_of(task, 1).keys() == names
    assert not torch.equal(weights_of(task, "discriminator"), discriminator)
    step_of(task, 2)  # the discriminators were frozen in the generator's part; they move again


def test_nothing_is_learnt_of_padding(corpus: tuple[FeatureStore, Waveforms]) -> None:
    def gradients(padding: float) -> torch.Tensor:
        torch.manual_seed(0)
        task = make_task(corpus, adversarial_from=0)
        item = Segments(*corpus, ["short"], 16)[0, (0, 0)]
        # Far enough from the speech for the generator's context not to reach it.
        item["features"][12:] = padding
        batch = torch.utils.data.default_collate([item, item])
        seen = []

        class Keep(Alone):
            def update(self, name: str, loss: torch.Tensor) -> None:
                loss.backward()
                seen.append(loss.item())

        task.training_step(batch, 0, Keep(task))
        parameters = task.modules["generator"].network.hifigan.parameters()
        grads = torch.cat([each.grad.flatten() for each in parameters])
        return torch.cat([grads, torch.tensor(seen)])

    # What the generator says where there is only padding changes no loss and no gradient.
    torch.testing.assert_close(gradients(0.0), gradients(3.0))


def test_a_batch_judged_at_once_is_judged_as_its_halves() -> None:
    discriminator = Discriminator(TINY).eval()  # spectral norm moves in training
    real, fake = torch.randn(3, 1, 2560), torch.randn(3, 1, 2560)
    with torch.no_grad():
        halves = split_judgements(discriminator(torch.cat([real, fake])))
        for half, waveform in zip(halves, (real, fake), strict=True):
            for (score, maps), (expected, expected_maps) in zip(
                half, discriminator(waveform), strict=True
            ):
                torch.testing.assert_close([score, *maps], [expected, *expected_maps])


@pytest.mark.parametrize("config", [SMALL, ISTFT])
def test_training_lowers_both_losses(
    corpus: tuple[FeatureStore, Waveforms], config: Config
) -> None:
    task = make_task(corpus, config, learning_rate=2e-3, lr_decay=1.0)
    losses = [step_of(task, step) for step in range(15)]
    assert losses[-1]["mel_loss"] < 0.9 * losses[0]["mel_loss"]
    assert losses[-1]["discriminator_loss"] < losses[0]["discriminator_loss"]


def test_a_harmonic_generator_learns_its_pitch_and_its_sound(tmp_path: Path) -> None:
    frames, names = 60, ["a", "b", "c"]
    meta = FeatureMeta("tiny", "0", 2, False, 16_000, 320)
    sizes, paths = [320 * frames + 90] * 3, {}
    with FeatureWriter(tmp_path / "0.h5", meta, names, ["s"] * 3, sizes, [frames] * 3, 6) as writer:
        for index, name in enumerate(names):
            place = np.linspace(0, 6, frames) + index
            writer.write(name, np.stack([np.sin(place + k) for k in range(6)], 1).astype("f4"))
            pitch = np.interp(
                np.arange(sizes[0]), np.arange(frames) * 320, 150 + 50 * np.sin(place)
            )
            turns = 2 * np.pi * np.cumsum(pitch / 16_000)
            wave = sum(np.cos(k * turns) / k for k in range(1, 9))
            paths[name] = tmp_path / f"{name}.wav"
            write_audio(paths[name], (0.05 * wave).astype(np.float32))
    store, waveforms = FeatureStore([tmp_path / "0.h5"]), Waveforms(with_checksums(paths))
    options = {"segment_frames": 24, "batch_size": 2, "learning_rate": 1e-2, "lr_decay": 1.0}
    options |= {"adversarial_from": 999, "mel_windows": [16, 64]}
    generator = make_generator(HARMONIC).train()
    task = VocoderTask(generator, TINY, store, waveforms, ["a", "b"], ["c"], **options)
    losses = [step_of(task, step) for step in range(60)]
    assert losses[0].keys() == {"mel_loss", "pitch_loss"}
    for name in losses[0]:
        assert losses[-1][name] < 0.7 * losses[0][name]


def test_the_mel_loss_of_several_windows_is_their_mean() -> None:
    one, other = 0.1 * torch.randn(2, 2, 8000)
    each = [mel_loss(one, other, 16_000, [ms]) for ms in (16, 128)]
    torch.testing.assert_close(mel_loss(one, other, 16_000, [16, 128]), torch.stack(each).mean())
    usual = (log_mel(one) - log_mel(other)).abs().mean()
    torch.testing.assert_close(mel_loss(one, other, 16_000), usual)
    bands = [log_mel(one, 16_000, ms / 1000, ms / 4000).shape for ms in (16, 64, 128)]
    assert bands == [(2, 20, 125), (2, 80, 31), (2, 160, 15)]


def test_learning_rate_decays_an_epoch(corpus: tuple[FeatureStore, Waveforms]) -> None:
    task = make_task(corpus, batch_size=1, learning_rate=8e-3)
    rates = []
    for step in range(5):
        step_of(task, step)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in task.optimizers.values()])
    assert rates == [[8e-3] * 2, [8e-3] * 2, [4e-3] * 2, [4e-3] * 2, [2e-3] * 2]


def test_mel_distance_by_hand(corpus: tuple[FeatureStore, Waveforms]) -> None:
    task = make_task(corpus)
    with torch.no_grad():
        metrics, sounds = task.validate(task.modules["generator"], torch.device("cpu"))
        waveform = task.modules["generator"](torch.from_numpy(corpus[0].read("short"))[None])[:, 0]
    original = torch.from_numpy(corpus[1].read("short")[: 4 * 320])[None]
    expected = (log_mel(waveform) - log_mel(original)).abs().mean().item()
    assert metrics == {"mel_distance": pytest.approx(expected)}
    assert sounds.keys() == {"synthesis/short"}
    assert torch.equal(sounds["synthesis/short"], waveform[0])
    assert torch.equal(task.recordings()["recording/short"], original[0])
    assert task.sample_rate == 16_000
    assert math.isfinite(expected)


def test_a_store_that_does_not_fit_is_an_error(corpus: tuple[FeatureStore, Waveforms]) -> None:
    other = Generator(GeneratorConfig(feature_dim=7, hidden_dim=8, upsample_channels=16))
    with pytest.raises(VocoderError, match=r"\(6, 50\.0\) for a generator of \(7, 50\.0\)"):
        VocoderTask(other, TINY, *corpus, ["long"], ["short"])
    with pytest.raises(VocoderError, match="1 in both"):
        VocoderTask(make_generator(), TINY, *corpus, ["long"], ["long"])

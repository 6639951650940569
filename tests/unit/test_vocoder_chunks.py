"""The receptive field, and synthesis in chunks against synthesis of the whole."""

from collections.abc import Iterator

import pytest
import torch

from etaflow.vocoder import Generator, GeneratorConfig, HarmonicConfig, IstftConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = [
    GeneratorConfig(feature_dim=3, hidden_dim=4, upsample_channels=16),
    GeneratorConfig(
        feature_dim=3,
        hidden_dim=4,
        upsample_channels=8,
        upsample_factors=(21, 7, 3),
        upsample_kernels=(23, 21, 3),
        resblock_kernels=(5, 3),
        resblock_dilations=((2, 11), (9, 40)),
        sample_rate=22_050,
    ),
    IstftConfig(feature_dim=3, hidden_dim=4, intermediate_dim=6, blocks=2, n_fft=1280),
    IstftConfig(
        feature_dim=3,
        hidden_dim=4,
        intermediate_dim=6,
        blocks=5,
        kernel=3,
        n_fft=1060,
        upsample=5,
        sample_rate=48_000,
    ),
]
HARMONIC = HarmonicConfig(3, 4, 6, blocks=2, kernel=5, bands=10, n_fft=512)
Config = GeneratorConfig | IstftConfig | HarmonicConfig
# Of the last: 1 + 2 frames before upsampling, 3 + 3 of 192 samples behind it, for 2 frames.
FIELDS = (11, 6, 11, 5)


def make(config: Config) -> Generator:
    torch.manual_seed(0)
    return Generator(config).eval().remove_weight_norm()


@pytest.mark.parametrize(("config", "field"), zip(CONFIGS, FIELDS, strict=True))
def test_what_a_frame_reaches_is_the_receptive_field(config: Config, field: int) -> None:
    assert config.receptive_field == field
    features = torch.zeros(1, 60, 3)
    features[0, 30] = float("nan")  # whatever depends on it becomes NaN, too
    with torch.no_grad():
        reached = make(config)(features)[0, 0].isnan().reshape(60, -1).any(dim=1)
    frames = reached.nonzero().flatten()
    assert max(30 - int(frames.min()), int(frames.max()) - 30) == field


@pytest.mark.parametrize("config", [*CONFIGS, HARMONIC])
@pytest.mark.parametrize(("frames", "chunk"), [(1, 1), (26, 1), (24, 23), (61, 7), (61, 61)])
def test_chunks_equal_the_whole(config: Config, frames: int, chunk: int) -> None:
    generator = make(config)
    features = torch.randn(frames, 3)
    with torch.no_grad():
        whole = generator(features[None])[0, 0]
    found = generator.synthesise(features, chunk)
    if config is HARMONIC:
        # Rounded pitches add up: a pulse is high and thin, and a trace of a sample elsewhere.
        assert (found - whole).square().mean() < 1e-5 * whole.square().mean()
    else:
        torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)
    assert found.shape == (config.hop_length * frames,)


def test_a_frame_of_a_harmonic_generator_depends_on_those_in_its_field_and_on_the_phase() -> None:
    generator = make(HARMONIC)
    features = torch.randn(60, 3)
    changed = features.clone()
    changed[30] += 10
    with torch.no_grad():
        one, other = (generator(each[None])[0, 0].reshape(60, -1) for each in (features, changed))
        turns = [generator.network(each[None])[2][0, -1] for each in (features, changed)]
    field = HARMONIC.receptive_field
    assert field == 3 * 2 + 1 + 2
    assert torch.equal(one[: 30 - field], other[: 30 - field])
    # The pitch of a few frames was another: the pulses after them come at other times.
    assert turns[0] != turns[1]


def test_a_stream_gives_what_it_can_and_asks_for_no_more() -> None:
    generator = make(CONFIGS[0])
    features = torch.randn(60, 3)
    asked = []

    def chunks() -> Iterator[torch.Tensor]:
        for size, chunk in zip((5, 30, 15, 10), features.split([5, 30, 15, 10]), strict=True):
            asked.append(size)
            yield chunk

    with torch.no_grad():
        stream = generator.stream(chunks())
        pieces = [next(stream)]
        assert asked == [5, 30]
        pieces += stream
        whole = generator(features[None])[0, 0]
    # 11 frames wait for what follows: 24 of 35, 39 of 50, 49 and at last all of 60.
    assert [len(piece) // 320 for piece in pieces] == [24, 15, 10, 11]
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-6, rtol=0)
    assert list(generator.stream([])) == []


def test_no_pass_takes_more_than_a_chunk_and_its_context() -> None:
    generator = make(CONFIGS[0])
    lengths = []
    generator.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    generator.synthesise(torch.randn(300, 3), 40)
    assert max(lengths) == 40 + 2 * 11
    assert len(lengths) == 8  # seven whole chunks and a short one

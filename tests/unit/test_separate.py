from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from etaflow.separation.network import Separator
from etaflow.separation.networks import create_separator
from etaflow.separation.separate import plan_chunks, separate, stream
from etaflow.separation.sepformer import SepFormer
from tests.conftest import remove_placeholders
from tests.separation_tools import SETTINGS

remove_placeholders()

RATE = 1_000


class Digits(Separator):
    """Takes a `mixture` apart; gives the speakers in an order drawn each time."""

    def __init__(self, speakers: int = 3) -> None:
        super().__init__()
        self.sample_rate, self.num_speakers, self.shortest, self.step = RATE, speakers, 10, 7
        self.anchor = nn.Parameter(torch.zeros(1))
        self.generator = np.random.default_rng(3)
        self.seen: list[int] = []

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        self.check_length(mixtures.shape[1])
        self.seen.append(mixtures.shape[1])
        digits = (mixtures[:, None] / 10.0 ** torch.arange(self.num_speakers)[:, None]).floor() % 10
        order = self.generator.permutation(self.num_speakers)
        return (digits - 4.5)[:, order]


def mixture(samples: int, speakers: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A mixture that can be taken apart, a digit a speaker, and the speakers (S, T)."""
    generator = np.random.default_rng(samples)
    digits = generator.integers(0, 10, (speakers, samples))
    values = (digits * 10.0 ** np.arange(speakers)[:, None]).sum(axis=0)
    return values.astype(np.float32), (digits - 4.5).astype(np.float32)


def ratio(reference: np.ndarray, found: np.ndarray) -> float:
    """Of the reference to the difference, in dB; that of the worst source."""
    noise = np.square(reference - found).sum(axis=1)
    return float((10 * np.log10(np.square(reference).sum(axis=1) / noise)).min())


def whole(network: Separator, signal: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        sources: np.ndarray = network(torch.from_numpy(signal)[None])[0].numpy()
    return sources


@given(st.integers(1, 3_000), st.integers(2, 400), st.integers(1, 399), st.integers(1, 50))
def test_chunks_cover_a_mixture(samples: int, longest: int, overlap: int, step: int) -> None:
    if samples > longest and longest - overlap < step:
        with pytest.raises(ValueError, match=f"chunks of {longest} samples with {overlap}"):
            plan_chunks(samples, longest, overlap, step)
        return
    chunks = plan_chunks(samples, longest, overlap, step)
    assert (chunks[0][0], chunks[-1][1]) == (0, samples)
    assert all(end - start <= longest for start, end in chunks)
    assert all(start % step == 0 for start, _ in chunks)
    for (_, end), (start, following) in pairwise(chunks):
        assert end - start == overlap
        assert following > end
    # No more chunks than it takes.
    hop = (longest - overlap) // step * step
    assert len(chunks) == 1 or (len(chunks) - 1) * hop + overlap < samples


@pytest.mark.parametrize("samples", [2_001, 2_500, 17_431])
def test_the_order_of_the_speakers_is_kept(samples: int) -> None:
    signal, sources = mixture(samples)
    network = Digits()
    found = separate(network, signal, max_seconds=2.0, overlap_seconds=0.3)
    assert max(network.seen) <= 2_000
    assert len(network.seen) == -(-(samples - 300) // 1_694)
    order = [int(np.argmax(sources @ row)) for row in found]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found, sources[order], atol=1e-5)


def test_a_speaker_who_pauses_is_told_by_the_others() -> None:
    signal, sources = mixture(6_000, 2)
    quiet = slice(1_000, 5_000)
    sources[0, quiet] = 0.03 * sources[1, quiet]  # all that is there leaks over from the other
    network = Digits(2)
    places = iter(plan_chunks(6_000, 2_000, 500, network.step))

    def known(mixtures: torch.Tensor) -> torch.Tensor:
        start, end = next(places)
        flipped = start % 2 == 1
        return torch.from_numpy(sources[:: -1 if flipped else 1, start:end].copy())[None]

    network.forward = known  # type: ignore[method-assign]
    found = separate(network, signal, max_seconds=2.0, overlap_seconds=0.5)
    np.testing.assert_allclose(found, sources, atol=1e-5)


def test_sources_are_faded_into_one_another() -> None:
    network = Digits(1)
    calls = iter([1.0, 3.0])
    network.forward = lambda x: torch.full((1, 1, x.shape[1]), next(calls))  # type: ignore[method-assign]
    found = separate(network, np.zeros(1_500, np.float32), 1.0, 0.3)[0]
    start = int(np.argmax(found > 1))
    assert start % network.step == 1
    np.testing.assert_array_equal(found[:start], 1.0)
    np.testing.assert_array_equal(found[start + 299 :], 3.0)
    assert (np.diff(found[start - 1 : start + 299]) > 0).all()
    assert found[start + 149] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("kind", list(SETTINGS))
def test_what_fits_in_a_chunk_is_what_the_network_gives(kind: str) -> None:
    torch.manual_seed(0)
    network = create_separator(SETTINGS[kind])
    signal = np.random.default_rng(0).normal(0, 0.1, network.sample_rate // 4).astype(np.float32)
    np.testing.assert_array_equal(separate(network, signal, 0.25), whole(network, signal))


def test_chunks_of_a_conv_tasnet_equal_the_whole() -> None:
    torch.manual_seed(0)
    network = create_separator(SETTINGS["conv-tasnet"])
    signal = np.random.default_rng(0).normal(0, 0.1, 64_003).astype(np.float32)
    expected, found = whole(network, signal), separate(network, signal, 2.0, 0.5)
    order = [int(np.argmax(expected @ row)) for row in found]
    assert ratio(expected[order], found) > 40


def test_chunks_of_a_sepformer_equal_the_whole() -> None:
    torch.manual_seed(0)
    sizes = create_separator(SETTINGS["sepformer"]).sizes()
    # With random weights, what a chunk is given as its place in the mixture outweighs the mixture.
    sizes["masknet"]["inter_model"] = {
        **sizes["masknet"]["inter_model"],
        "use_positional_encoding": False,
    }
    network = SepFormer.from_sizes(sizes).eval()
    assert network.longest is None
    signal = np.random.default_rng(0).normal(0, 0.1, 32_003).astype(np.float32)
    expected, found = whole(network, signal), separate(network, signal, 2.0, 0.5)
    assert ratio(expected, found) > 35


def test_blocks_come_one_by_one() -> None:
    signal, _ = mixture(100_000)
    network = Digits()
    blocks = stream(network, signal, 2.0, 0.3)
    first = next(blocks)
    assert len(network.seen) == 1
    sizes = [first.shape[1], *(block.shape[1] for block in blocks)]
    assert max(sizes) <= 2_000
    assert sum(sizes) == 100_000


def test_chunks_are_no_longer_than_the_network_takes() -> None:
    network = Digits()
    network.longest = 800
    separate(network, mixture(5_000)[0], 2.0, 0.3)
    assert max(network.seen) <= 800


def test_lengths_that_cannot_be_separated() -> None:
    network, signal = Digits(), mixture(5_000)[0]
    for size, longest, overlap, problem in (
        (9, 2.0, 0.3, "a mixture of 9 samples; the separator needs 10"),
        (5_000, 1.0, 0.0, "there has to be an overlap"),
        (5_000, 1.0, 0.995, "and 7 samples or more besides it"),
        (5_000, 1.0, 0.009, "a mixture of 9 samples; the separator needs 10"),
    ):
        with pytest.raises(ValueError, match=problem):
            separate(network, signal[:size], longest, overlap)
    signal[4_000] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        separate(network, signal, 2.0, 0.3)

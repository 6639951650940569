from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from etaflow import mappings
from etaflow.knn import match
from etaflow.mappings import AffineMap, MappingError, fit_linear, fit_transport

Fit = Callable[[Tensor, Tensor], AffineMap]
BOTH = pytest.mark.parametrize("fit", [fit_linear, fit_transport])


def correlated(frames: int, dims: int, seed: int, offset: float = 0.0) -> Tensor:
    """Frames of unequal, correlated dimensions, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=generator)
    mixing += torch.diag(torch.linspace(1, 4, dims))
    return torch.randn(frames, dims, generator=generator) @ mixing + offset


def covariance(features: Tensor) -> Tensor:
    return torch.cov(features.double().T)


def content(frames: int, speaker: int, dims: int = 16, seed: int = 0) -> Tensor:
    """Twelve well separated phones said by a speaker: a rotation near the identity, and a shift."""
    generator = torch.Generator().manual_seed(seed)
    phones = 10 * torch.randn(12, dims, generator=torch.Generator().manual_seed(99))
    said = phones[torch.randint(12, (frames,), generator=generator)]
    said = said + 0.5 * torch.randn(frames, dims, generator=generator)
    rotation, shift = voice(speaker, dims)
    return said @ rotation + shift


def voice(speaker: int, dims: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + speaker)
    skew = 0.08 * torch.randn(dims, dims, generator=generator)
    return torch.linalg.matrix_exp(skew - skew.T), torch.randn(dims, generator=generator)


# Both maps


@BOTH
def test_chunks_and_half_precision_give_what_the_whole_gives(fit: Fit) -> None:
    source, target = correlated(300, 10, 0, 2.0), correlated(200, 10, 1)
    mapping = fit(source[:120], target)
    whole = mapping(source)
    assert whole.dtype == torch.float32
    chunks = torch.cat([mapping(chunk) for chunk in source.split(37)])
    torch.testing.assert_close(chunks, whole, rtol=1e-5, atol=1e-5)
    half, rounded = source.half(), source.half().float()
    assert torch.equal(mapping(half), mapping(rounded))
    from_half = fit(half[:120], target.half())(half)
    torch.testing.assert_close(from_half, fit(rounded[:120], target.half().float())(rounded))
    assert mapping(source[:0]).shape == (0, 10)


@BOTH
def test_the_fit_does_not_depend_on_chunks_and_repeats_itself(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = correlated(300, 10, 0), correlated(200, 10, 1)
    first = fit(source, target)
    assert torch.equal(fit(source, target).weight, first.weight)
    monkeypatch.setattr(mappings, "FRAME_CHUNK", 17)
    torch.testing.assert_close(fit(source, target).weight, first.weight)


@BOTH
def test_what_cannot_be_fitted_is_refused_with_the_reason(fit: Fit) -> None:
    good, bad = correlated(50, 6, 0), correlated(50, 6, 1)
    bad[3, 2] = torch.nan
    with pytest.raises(MappingError, match="target has features that are not finite"):
        fit(good, bad)
    with pytest.raises(MappingError, match=r"source \(50, 6\) and target \(50, 5\)"):
        fit(good, good[:, :5])
    with pytest.raises(MappingError, match=r"source has 1 frame\(s\).*give a longer recording"):
        fit(good[:1], good)
    with pytest.raises(MappingError, match=r"target has 0 frame\(s\)"):
        fit(good, good[:0])
    with pytest.raises(MappingError, match="the map is of 6 dimensions"):
        fit(good, good)(good[:, :5])


@BOTH
def test_a_constant_dimension_stays_finite_and_goes_to_the_target(fit: Fit) -> None:
    source, target = correlated(80, 6, 0), correlated(90, 6, 1)
    source[:, 2], target[:, 2] = 3.1, -7.3  # dead in both
    source[:, 4] = 0.1  # varies in the target only
    mapping = fit(source, target)
    mapped = mapping(source)
    assert mapped.isfinite().all()
    torch.testing.assert_close(mapped[:, 2], torch.full((80,), -7.3))
    later = source.clone()
    later[:, 4] += 1.0
    assert (mapping(later) - mapped).abs().max() < 10


@BOTH
@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_a_source_that_never_varies_is_only_shifted(fit: Fit, value: float) -> None:
    source, target = torch.full((30, 5), value), correlated(90, 5, 1)
    mapping = fit(source, target)
    torch.testing.assert_close(mapping.weight, torch.eye(5), rtol=0, atol=1e-2)
    expected = target if fit is fit_transport else match(source, target, topk=1)
    torch.testing.assert_close(
        mapping(source).mean(dim=0), expected.mean(dim=0), rtol=1e-4, atol=1e-3
    )


@BOTH
@settings(deadline=None, max_examples=25)
@given(
    frames=st.integers(6, 40),
    dims=st.integers(1, 24),
    level=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 2**31),
)
def test_the_mean_of_the_source_goes_to_the_mean_of_its_match(
    fit: Fit, frames: int, dims: int, level: float, seed: int
) -> None:
    """True of fewer frames than dimensions, too, and far from the origin."""
    source, target = correlated(frames, dims, seed, level), correlated(30, dims, seed + 1, -level)
    expected = target if fit is fit_transport else match(source, target, topk=1)
    torch.testing.assert_close(
        fit(source, target)(source).mean(dim=0), expected.mean(dim=0), rtol=1e-4, atol=1e-2
    )


# LinearVC


def test_a_true_linear_map_between_voices_is_recovered() -> None:
    source, target = content(2000, speaker=1, seed=1), content(4000, speaker=2, seed=2)
    rotation, shift = voice(1)
    other, other_shift = voice(2)
    held_out = content(200, speaker=1, seed=3)
    truth = (held_out - shift) @ rotation.T @ other + other_shift
    error = (fit_linear(source, target)(held_out) - truth).square().mean()
    assert error < 0.05 * (held_out - truth).square().mean()


def plain_linear(source: Tensor, target: Tensor, ridge: float) -> Tensor:
    """The weight by its definition: least squares over pairs and over the prior's extra rows."""
    x = source.double().numpy()
    y = match(source, target, topk=1).double().numpy()
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    prior = np.sqrt(ridge * x.var(axis=0).mean()) * np.eye(x.shape[1])
    rows = np.concatenate([x, prior]), np.concatenate([y, prior])
    return torch.from_numpy(np.linalg.lstsq(*rows)[0])


@pytest.mark.parametrize("frames", [12, 300])  # fewer and more than dimensions
@pytest.mark.parametrize("ridge", [1e-3, 100.0])
def test_linear_equals_least_squares_with_the_priors_rows(frames: int, ridge: float) -> None:
    source, target = correlated(frames, 20, 0, 1.0), correlated(150, 20, 1)
    weight = fit_linear(source, target, ridge=ridge).weight
    torch.testing.assert_close(weight, plain_linear(source, target, ridge).float())


def test_linear_maps_a_source_matched_with_itself_to_itself() -> None:
    source = correlated(40, 60, 0, 3.0)
    torch.testing.assert_close(fit_linear(source, source)(source), source, rtol=1e-4, atol=1e-4)


def test_linear_uses_frames_of_all_recordings_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = correlated(40, 4, 0), correlated(100, 4, 1)
    monkeypatch.setattr(mappings, "MAX_PAIRED_FRAMES", 20)
    expected = fit_linear(source[::2], target[::5])
    torch.testing.assert_close(fit_linear(source, target).weight, expected.weight)


# Transport


def plain_transport(source: Tensor, target: Tensor) -> Tensor:
    a, b = covariance(source).numpy(), covariance(target).numpy()
    root = sqrtm(a)
    inverse = np.linalg.inv(root)
    return torch.from_numpy((inverse @ sqrtm(root @ b @ root) @ inverse).real)


def test_transport_of_one_block_equals_the_closed_form() -> None:
    source, target = correlated(200, 7, 0, 5.0), correlated(150, 7, 1)
    mapping = fit_transport(source, target, block_size=7)
    expected = plain_transport(source, target)
    torch.testing.assert_close(mapping.weight, expected.float(), rtol=1e-4, atol=1e-5)
    mapped = mapping(source)
    torch.testing.assert_close(mapped.mean(dim=0), target.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariance(mapped), covariance(target), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("block_size", [1, 2, 3])  # 7 dimensions: the last block has 1, 1, 1
def test_transport_goes_by_blocks_of_falling_source_variance(block_size: int) -> None:
    source, target = correlated(200, 7, 0), correlated(150, 7, 1)
    source = source * torch.tensor([1.0, 9.0, 3.0, 0.5, 7.0, 0.1, 5.0])
    order = source.var(dim=0).argsort(descending=True)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for block in order.split(block_size):
        columns = source[:, block], target[:, block]
        part = (
            plain_transport(*columns)
            if len(block) > 1
            else (columns[1].double().std() / columns[0].double().std())[None, None]
        )
        expected[block[:, None], block] = part
    weight = fit_transport(source, target, block_size).weight
    torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_transport_is_symmetric_positive_definite_and_inverted_by_the_way_back(
    dims: int, block_size: int, seed: int
) -> None:
    block_size = min(block_size, dims)
    source = correlated(60, dims, seed) * torch.linspace(8, 1, dims)
    target = correlated(50, dims, seed + 1)
    there = fit_transport(source, target, block_size).weight
    assert torch.equal(there, there.T) or (there - there.T).abs().max() < 1e-5 * there.abs().max()
    assert torch.linalg.eigvalsh(there.double()).min() > 0
    if block_size == dims:  # one block: the order of dimensions plays no part
        back = fit_transport(target, source, block_size).weight
        torch.testing.assert_close(there @ back, torch.eye(dims), rtol=0, atol=1e-2)


def test_transport_between_equal_gaussians_is_the_identity_even_if_they_are_flat() -> None:
    source = correlated(50, 6, 0, 4.0)
    source[:, 3], source[:, 5] = source[:, 1], 2.5
    for block_size in (2, 6):
        weight = fit_transport(source, source.flip(0), block_size).weight
        torch.testing.assert_close(weight, torch.eye(6), rtol=0, atol=1e-4)


def test_transport_does_not_take_rounding_for_variance() -> None:
    source, target = torch.full((40, 2), 1000.0), correlated(50, 2, 1)
    source[::3] = torch.nextafter(source[::3], torch.tensor(torch.inf))
    torch.testing.assert_close(fit_transport(source, target).weight, torch.eye(2))


def test_parameters_that_mean_nothing_are_refused() -> None:
    frames = correlated(20, 3, 0)
    with pytest.raises(MappingError, match="ridge of 0 frames"):
        fit_linear(frames, frames, ridge=0)
    with pytest.raises(MappingError, match="blocks of 0 dimensions"):
        fit_transport(frames, frames, block_size=0)
    one_block = fit_transport(frames, frames + 1, block_size=9)
    torch.testing.assert_close(one_block(frames), frames + 1, rtol=1e-4, atol=1e-4)


def test_transport_needs_more_frames_than_a_block_has_dimensions() -> None:
    source, target = correlated(40, 12, 0), correlated(9, 12, 1)
    with pytest.raises(MappingError, match=r"target has 9 frame\(s\), the fit needs 10"):
        fit_transport(source, target, block_size=6)
    assert fit_transport(source, target, block_size=5)(source).isfinite().all()

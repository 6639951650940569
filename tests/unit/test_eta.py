from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etaflow.eta import (
    EtaError,
    EtaModel,
    Pca,
    condition_number,
    draw_frames,
    explained_variance,
    fit,
)


def make_data(seed: int, utterances: int = 30, components: int = 5, dim: int = 7):
    """Utterances of uneven length, their frames, and badly scaled speaker vectors."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 60, utterances)
    vectors = generator.normal(size=(utterances, components)) * 10.0 ** np.arange(
        -3, components - 3
    ) + generator.normal(size=components)
    true = generator.normal(size=(components, dim))
    frames = [
        vector @ true + generator.normal(size=(count, dim)) + 3
        for vector, count in zip(vectors, counts, strict=True)
    ]
    return counts, vectors, frames


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_the_fit_equals_the_pseudo_inverse_over_all_frames(seed: int) -> None:
    counts, vectors, frames = make_data(seed)
    sums = np.stack([each.sum(axis=0) for each in frames])
    coefficients, bias = fit(sums, counts, vectors)
    design = np.column_stack([np.repeat(vectors, counts, axis=0), np.ones(counts.sum())])
    reference = np.linalg.lstsq(design, np.concatenate(frames), rcond=None)[0]
    predicted, expected = (
        vectors @ coefficients + bias,
        np.column_stack([vectors, np.ones(len(vectors))]) @ reference,
    )
    assert np.abs(predicted - expected).max() < 1e-8 * np.abs(expected).max()
    np.testing.assert_allclose(coefficients, reference[:-1], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(bias, reference[-1], rtol=1e-6, atol=1e-9)


def test_r2_from_sums_equals_r2_over_frames() -> None:
    counts, vectors, frames = make_data(0)
    sums = np.stack([each.sum(axis=0) for each in frames])
    squares = np.stack([(each**2).sum(axis=0) for each in frames])
    coefficients, bias = fit(sums, counts, vectors)
    per_dimension, total = explained_variance(coefficients, bias, sums, squares, counts, vectors)
    stacked = np.concatenate(frames)
    residual = stacked - np.repeat(vectors @ coefficients + bias, counts, axis=0)
    spread = stacked - stacked.mean(axis=0)
    np.testing.assert_allclose(
        per_dimension, 1 - (residual**2).sum(axis=0) / (spread**2).sum(axis=0), atol=1e-10
    )
    assert total == pytest.approx(1 - (residual**2).sum() / (spread**2).sum(), abs=1e-10)


def test_too_few_distinct_speaker_vectors_say_how_many_are_needed() -> None:
    vectors = np.repeat(np.eye(4), 3, axis=0)
    with pytest.raises(EtaError, match=r"4 distinct speaker vectors for 5 unknowns.*at least 5"):
        fit(np.ones((12, 2)), np.ones(12), vectors)


def test_dependent_vectors_are_refused_unless_ridge_settles_them() -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(size=(20, 1))
    vectors = np.hstack([one, 2 * one])
    sums = generator.normal(size=(20, 3))
    with pytest.raises(EtaError, match="linearly dependent"):
        fit(sums, np.ones(20), vectors)
    coefficients, _ = fit(sums, np.ones(20), vectors, ridge=1e-3)
    standardised = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    target = sums - sums.mean(axis=0)
    normal = standardised.T @ standardised / 20 + 1e-3 * np.eye(2)
    expected = np.linalg.solve(normal, standardised.T @ target / 20) / vectors.std(axis=0)[:, None]
    np.testing.assert_allclose(coefficients, expected)
    constant = np.hstack([one, np.ones((20, 1))])
    assert condition_number(np.ones(20), constant, ridge=0.1) < 1e2


def test_not_finite_input_is_refused() -> None:
    with pytest.raises(EtaError, match="must be finite"):
        fit(np.full((3, 2), np.nan), np.ones(3), np.arange(3.0)[:, None])


def test_the_condition_number_does_not_see_the_scale_of_the_vectors() -> None:
    counts, vectors, _ = make_data(3)
    assert condition_number(counts, vectors) == pytest.approx(
        condition_number(counts, vectors * 1e6), rel=1e-6
    )


def test_pca_keeps_what_scikit_learn_says_and_refuses_too_many() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(40, 6)) * [9, 5, 3, 1, 1, 1]
    pca = Pca.fit(embeddings, 3)
    reduced = pca.transform(embeddings)
    variances = np.linalg.svd(embeddings - embeddings.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(reduced.var(axis=0) * 40, variances[:3])
    np.testing.assert_allclose(pca.explained_variance_ratio, variances[:3] / variances.sum())
    with pytest.raises(EtaError, match="41 components asked of 40 embeddings"):
        Pca.fit(embeddings, 41)


@pytest.mark.parametrize("with_pca", [True, False])
def test_a_model_survives_saving_and_removes_what_it_added(tmp_path: Path, with_pca: bool) -> None:
    generator = np.random.default_rng(0)
    pca = Pca.fit(generator.normal(size=(20, 6)), 4) if with_pca else None
    model = EtaModel(
        generator.normal(size=(4 if with_pca else 6, 8)),
        generator.normal(size=8),
        generator.normal(size=8),
        pca,
        {"model": "m", "layer": 3},
    )
    model.save_pretrained(tmp_path)
    again = EtaModel.from_pretrained(tmp_path)
    embedding = generator.normal(size=6)
    component = again.speaker_component(embedding)
    # Where arrays lie in memory moves the last bit of products on some processors.
    np.testing.assert_allclose(component, model.speaker_component(embedding), rtol=1e-12)
    content = generator.normal(size=(5, 8))
    np.testing.assert_allclose(
        again.remove_speaker(content + component, embedding), content, atol=1e-5
    )
    with pytest.raises(EtaError, match="layer 3, the features have 4"):
        again.check_features({"model": "m", "layer": 4})
    with pytest.raises(EtaError, match=r"expected \(6,\)"):
        again.speaker_component(embedding[:5])
    with pytest.raises(EtaError, match=r"expected \(T, 8\)"):
        again.remove_speaker(content[:, :7], embedding)


def test_drawn_frames_depend_on_the_utterance_and_the_seed() -> None:
    frames = draw_frames("a", 100, 10)
    assert len(frames) == len(set(frames.tolist())) == 10
    assert sorted(frames) == list(frames)
    assert set(frames) <= set(range(100))
    assert list(frames) == list(draw_frames("a", 100, 10))
    assert list(frames) != list(draw_frames("b", 100, 10))
    assert list(frames) != list(draw_frames("a", 100, 10, seed=1))
    assert list(draw_frames("a", 3, 10)) == [0, 1, 2]


@pytest.mark.parametrize("parts", [2, 7])
def test_shards_give_the_same_fit(parts: int) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 90, 60)
    vectors = generator.normal(size=(60, 8)) * 10.0 ** np.arange(-4, 4)
    sums = generator.normal(size=(60, 16)) * counts[:, None]
    whole = fit(sums, counts, vectors)
    order = np.concatenate(np.array_split(generator.permutation(60), parts)[::-1])
    for one, other in zip(whole, fit(sums[order], counts[order], vectors[order]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(one).max())


@pytest.mark.parametrize("constant", [0.0, 0.05, 0.1, 1 / 3])
def test_a_constant_column_is_no_predictor(constant: float) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 60, 301)
    vectors = np.column_stack([generator.normal(size=301), np.full(301, constant)])
    with pytest.raises(EtaError, match="linearly dependent"):
        fit(generator.normal(size=(301, 3)), counts, vectors.astype(np.float32))


def test_embeddings_that_span_less_than_they_seem_to_are_refused() -> None:
    generator = np.random.default_rng(0)
    distinct = generator.normal(size=(20, 64)).astype(np.float32)
    repeated = distinct[generator.integers(0, 20, 301)]
    with pytest.raises(EtaError, match="span only 19 dimensions"):
        Pca.fit(repeated, 20)
    summed = generator.normal(size=(301, 16)).astype(np.float32)
    summed[:, 15] = summed[:, 0] + summed[:, 1]
    with pytest.raises(EtaError, match="linearly dependent"):
        fit(generator.normal(size=(301, 3)), np.ones(301), summed)

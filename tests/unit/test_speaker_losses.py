"""The losses of speaker encoders, against loops."""

import math

import numpy as np
import pytest
import torch

from etaflow.speaker.losses import Criterion, make_criterion

LABELS = torch.tensor([3, 0, 2, 0])  # a speaker twice
KINDS = ("ge2e", "bce_pairs", "am_softmax", "aam_softmax")


def batch(seed: int, rows: int = 4, utterances: int = 3, dim: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, utterances, dim, generator=generator)


def made(kind: str, dim: int = 5, **settings: float) -> Criterion:
    torch.manual_seed(0)
    return make_criterion({"kind": kind, **settings}, dim, 4)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("seed", range(3))
def test_ge2e_by_loops(seed: int) -> None:
    embeddings = batch(seed)
    e = embeddings.double().numpy()
    e /= np.linalg.norm(e, axis=2, keepdims=True)
    losses = []
    for j in range(4):
        for i in range(3):
            similarities = {}
            for k in range(4):
                others = [e[k, u] for u in range(3) if (k, u) != (j, i)]
                similarities[k] = 10 * cosine(e[j, i], np.mean(others, axis=0)) - 5
            kept = [k for k in range(4) if k == j or LABELS[k] != LABELS[j]]
            total = sum(math.exp(similarities[k]) for k in kept)
            losses.append(-similarities[j] + math.log(total))
    assert made("ge2e")(embeddings, LABELS).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_ge2e_learns_scale_and_offset_slowly_and_keeps_the_scale_above_zero() -> None:
    criterion, free = made("ge2e"), made("ge2e")
    for hook in (free.scale, free.offset):
        hook._backward_hooks.clear()
    for each in (criterion, free):
        each(batch(0), LABELS).backward()
    assert criterion.scale.grad.item() == pytest.approx(0.01 * free.scale.grad.item())
    # One offset for all speakers changes no softmax.
    assert criterion.offset.grad.item() == pytest.approx(0, abs=1e-7)
    with torch.no_grad():
        criterion.scale.fill_(-3.0)
    loss = criterion(batch(0), LABELS)
    assert criterion.scale.item() == pytest.approx(1e-6)
    criterion.zero_grad()
    loss.backward()
    assert criterion.scale.grad.item() != 0


@pytest.mark.parametrize("seed", range(3))
def test_bce_pairs_by_loops(seed: int) -> None:
    embeddings = batch(seed)
    vectors, owners = embeddings.double().reshape(-1, 5).numpy(), LABELS.repeat_interleave(3)
    losses: dict[bool, list[float]] = {True: [], False: []}
    for i in range(12):
        for j in range(i + 1, 12):
            same = bool(owners[i] == owners[j])
            chance = 1 / (1 + math.exp(5 - 10 * cosine(vectors[i], vectors[j])))
            losses[same].append(-math.log(chance if same else 1 - chance))
    # Rows 1 and 3 are one speaker: six utterances, fifteen pairs.
    assert len(losses[True]) == 2 * 3 + 15
    expected = (np.mean(losses[True]) + np.mean(losses[False])) / 2
    assert made("bce_pairs")(embeddings, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["am_softmax", "aam_softmax"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_margin_softmax_by_loops(kind: str, margin: float, seed: int) -> None:
    criterion, embeddings = made(kind, dim=2, margin=margin, scale=7.0), batch(seed, 4, 6, 2)
    weights = criterion.weight.detach().double().numpy()
    losses, beyond = [], 0
    for row, label in zip(embeddings.double().numpy(), LABELS.tolist(), strict=True):
        for vector in row:
            logits = [7 * cosine(vector, weight) for weight in weights]
            angle = math.acos(logits[label] / 7)
            if kind == "am_softmax":
                logits[label] = 7 * (math.cos(angle) - margin)
            elif angle < math.pi - margin:
                logits[label] = 7 * math.cos(angle + margin)
            else:
                logits[label] = 7 * (math.cos(angle) - margin * math.sin(margin))
                beyond += 1
            losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
    assert criterion(embeddings, LABELS).item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert beyond or kind == "am_softmax" or margin < 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["equal", "opposite", "zero", "weight"])
def test_gradients_are_finite_where_directions_coincide_or_vanish(kind: str, case: str) -> None:
    criterion = made(kind)
    start = torch.ones(4, 3, 5)
    if case == "opposite":  # of three utterances, two cancel out in a centroid
        start[:, 1] = -1
    if case == "zero":
        start[1] = 0
    if case == "weight" and hasattr(criterion, "weight"):
        with torch.no_grad():
            criterion.weight.fill_(1.0)
            criterion.weight[2] = -1
    embeddings = start.requires_grad_()
    loss = criterion(embeddings, LABELS)
    loss.backward()
    assert torch.isfinite(loss)
    for each in (embeddings, *criterion.parameters()):
        assert torch.isfinite(each.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_the_loss_is_that_of_float32(kind: str) -> None:
    criterion, embeddings = made(kind), batch(0).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        rough = criterion(embeddings, LABELS)
    assert rough.dtype == torch.float32
    assert rough.item() == criterion(embeddings.float(), LABELS).item()


def test_batches_that_lack_what_is_compared_are_named() -> None:
    one = torch.tensor([2, 2, 2, 2])
    with pytest.raises(ValueError, match="ge2e: a batch of one speaker only"):
        made("ge2e")(batch(0), one)
    with pytest.raises(ValueError, match="ge2e: one utterance a speaker"):
        made("ge2e")(batch(0, utterances=1), LABELS)
    with pytest.raises(ValueError, match="bce_pairs: a batch of one speaker only"):
        made("bce_pairs")(batch(0), one)
    with pytest.raises(ValueError, match="bce_pairs: a batch of one utterance a speaker only"):
        made("bce_pairs")(batch(0, utterances=1), torch.arange(4))
    assert made("bce_pairs")(batch(0, utterances=1), LABELS).isfinite()  # one stands there twice
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"\(4, 3, 5\) and labels \(3,\): expected"):
            made(kind)(batch(0), torch.arange(3))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "triplet"}, "loss 'triplet': known are ge2e, bce_pairs, am_softmax, aam_softmax"),
        ({"kind": "ge2e", "margin": 0.1}, "loss ge2e: no such setting: margin"),
        ({"kind": "am_softmax", "m": 0.1}, "loss am_softmax: no such setting: m"),
        ({"kind": "am_softmax", "margin": -0.1}, "margin -0.1 is not in"),
        ({"kind": "aam_softmax", "scale": 0}, "scale 0 not > 0"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
        make_criterion(settings, 5, 4)

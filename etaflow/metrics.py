"""Figures of merit: error rates of verification, signal ratios, word errors, intervals."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]


def _checked_trials(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, classes = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != classes.shape:
        raise ValueError(
            f"scores {values.shape} and labels {classes.shape} must be vectors of one length"
        )
    if len(values) == 0:
        raise ValueError("no trials: scores and labels are empty")
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} score(s) are NaN or infinite")
    targets = classes == 1
    if not (targets | (classes == 0)).all():
        raise ValueError("labels must be 1 (target) or 0 (non-target)")
    return values, targets


def detection_error_curve(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """False-accept and false-reject rates at every threshold, for DET plots.

    A trial is accepted if its score is at or above the threshold, so trials of one score are
    accepted together. One sort and two cumulative sums (sorted scores take linear time).

    Args:
        scores: (N,) higher means more likely a target.
        labels: (N,) 1 for target, 0 for non-target trials.
        weights: (N,) how often each trial counts, not negative; once if None.

    Returns:
        false_accept (K,) falling from 1 to 0, false_reject (K,) rising from 0 to 1, and the
        thresholds (K,): the distinct scores, rising, then infinity, which rejects all.

    Raises:
        ValueError: nothing to score, NaN or infinite scores, shapes that differ, labels other
            than 0 and 1, or trials (of positive weight) of one class only.
    """
    values, targets = _checked_trials(scores, labels)
    counts = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if counts.shape != values.shape or not (counts >= 0).all():
        raise ValueError(f"weights must be {len(values)} numbers of 0 or more")
    order = np.argsort(values, kind="stable")
    values, targets, counts = values[order], targets[order], counts[order]
    # first[k] is the first trial that threshold k accepts; all before it are rejected.
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    rejected_targets = np.concatenate([[0.0], np.cumsum(counts * targets)])
    rejected_others = np.concatenate([[0.0], np.cumsum(counts * ~targets)])
    if rejected_targets[-1] == 0 or rejected_others[-1] == 0:
        missing = "target (1)" if rejected_targets[-1] == 0 else "non-target (0)"
        raise ValueError(f"trials of one class only: there is no {missing} trial")
    ends = np.append(first, len(values))
    false_reject = rejected_targets[ends] / rejected_targets[-1]
    false_accept = 1.0 - rejected_others[ends] / rejected_others[-1]
    return false_accept, false_reject, np.append(values[first], np.inf)


def equal_error_rate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """The rate at which false accepts equal false rejects, and the threshold there.

    The crossing is interpolated linearly between neighbouring points of the detection error
    curve, as scikit-learn's ROC curve and a root finder would give it.

    Returns:
        The rate, 0 to 1, and the threshold, in the unit of the scores. If only rejecting all
        trials lies beyond the crossing, the threshold is the highest score.

    Raises:
        ValueError: as `detection_error_curve`, which also explains the arguments.
    """
    accept, reject, thresholds = detection_error_curve(scores, labels, weights)
    above = int(np.argmax(reject >= accept))  # at least 1: the curve starts at (1, 0)
    below = above - 1
    gap_below, gap_above = accept[below] - reject[below], reject[above] - accept[above]
    share = gap_below / (gap_below + gap_above)
    rate = accept[below] + share * (accept[above] - accept[below])
    if np.isinf(thresholds[above]):
        return float(rate), float(thresholds[below])
    step = thresholds[above] - thresholds[below]
    return float(rate), float(thresholds[below] + share * step)


def si_snr(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-noise ratio in dB of (T,) waveforms, both made zero-mean.

    Luo and Mesgarani, "TasNet", ICASSP 2018; computed by torchmetrics in float64.

    Raises:
        ValueError: shapes differ or are not (T,), a value is NaN or infinite, or a waveform is
            silent (constant), for which the ratio is undefined.
    """
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

    signals = {
        "estimate": np.asarray(estimate, np.float64),
        "reference": np.asarray(reference, np.float64),
    }
    shapes = [signal.shape for signal in signals.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"estimate {shapes[0]} and reference {shapes[1]} must be vectors of one length"
        )
    for name, signal in signals.items():
        if not np.isfinite(signal).all():
            raise ValueError(f"the {name} has NaN or infinite samples")
        if np.ptp(signal) == 0:
            raise ValueError(f"the {name} is silent: its SI-SNR is undefined")
    tensors = [torch.from_numpy(signal) for signal in signals.values()]
    return float(scale_invariant_signal_noise_ratio(*tensors))


def normalize_text(text: str) -> str:
    """Lower-case words parted by one space, in any language.

    Whatever is no letter, mark or digit parts words, except apostrophes within a word. Numbers and
    spellings stay as they are.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    words = (word.strip("'") for word in kept.split())
    return " ".join(word for word in words if word)


@cache
def _whisper_normalizer() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    # Its table of British and American spellings comes with Whisper's tokenizer, not with the
    # package; without it, spellings stay as they are.
    normalizer: Callable[[str], str] = EnglishTextNormalizer({})
    return normalizer


def normalize_english(text: str) -> str:
    """English words as Whisper's evaluation counts them (Radford et al. 2022, appendix C).

    On top of case and punctuation: numbers become digits, contractions and titles are written out,
    fillers (`uh`) and what stands in brackets goes. Spellings stay: `colour` is not `color`.
    """
    normal = _whisper_normalizer()(unicodedata.normalize("NFKC", text).replace("\u2019", "'"))
    # A text of stops alone leaves one over.
    return " ".join(word for word in normal.split() if any(map(str.isalnum, word)))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions + deletions + insertions, and the words of the reference.

    Both texts are put through `normalize_english`. An empty hypothesis is all deletions; against an
    empty reference all words are insertions.
    """
    import jiwer

    result = jiwer.process_words(normalize_english(reference), normalize_english(hypothesis))
    spoken = result.hits + result.substitutions + result.deletions
    return result.substitutions + result.deletions + result.insertions, spoken


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """As `word_errors`, in characters, the spaces between words among them."""
    import jiwer

    result = jiwer.process_characters(normalize_english(reference), normalize_english(hypothesis))
    spoken = result.hits + result.substitutions + result.deletions
    return result.substitutions + result.deletions + result.insertions, spoken


def bootstrap_interval(
    statistic: Callable[[Indices], float],
    size: int | Sequence[int],
    rounds: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        statistic: takes the indices (N,) of the drawn items and returns the figure of that
            sample. NaN leaves a sample that has no such figure out.
        size: how many items there are to draw from with replacement. Several sizes: items stand
            group after group, and each group is drawn on its own, keeping its size.
        rounds: number of samples drawn.
        seed: of the random generator; equal seeds give equal draws.
        confidence: share of the samples between the two bounds, 0 to 1.

    Raises:
        ValueError: there is nothing to draw from, or no sample has a figure.
    """
    sizes = np.atleast_1d(np.asarray(size, np.int64))
    if len(sizes) == 0 or (sizes < 1).any() or rounds < 1:
        raise ValueError(f"nothing to draw: groups of {sizes.tolist()} items, {rounds} rounds")
    lowest = np.repeat(np.cumsum(sizes) - sizes, sizes)
    highest = np.repeat(np.cumsum(sizes), sizes)
    generator = np.random.default_rng(seed)
    figures = np.array([statistic(generator.integers(lowest, highest)) for _ in range(rounds)])
    if np.isnan(figures).all():
        raise ValueError(f"none of the {rounds} samples has a figure")
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(figures, [tail, 100 - tail])
    return float(low), float(high)

"""What figures of separation rest on, in words: those of a run, and published ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from etaflow.manifest import first_names

BASELINE = "mixture"  # the system that separates nothing
# As the page heads its columns, in order.
NAMES = {
    "si_snr": "SI-SNR, dB",
    "si_snri": "SI-SNRi, dB",
    "sdr": "SDR, dB",
    "sdri": "SDRi, dB",
    "si_snri_gain": "SI-SNRi, after minus before, dB",
}
NOTES = {
    "si_snr": "scale-invariant signal-to-noise ratio of each reference's estimate, by the "
    "permutation of the estimates with the best mean; of the mixture row, that of the mixture "
    "itself. It says how clean an estimate is, not how much cleaner than the mixture",
    "si_snri": "SI-SNR(estimate) - SI-SNR(mixture) of the same reference, by the same "
    "permutation; 0 is separating nothing, below 0 is worse than that",
    "sdr": "signal-to-distortion ratio of BSS Eval, which counts what a filter of 512 taps makes "
    "of the reference as signal; by the permutation with the best mean SDR",
    "sdri": "SDR(estimate) - SDR(mixture) of the same reference",
    "si_snri_gain": "mean difference over the same mixtures: SI-SNRi of this system (after) minus "
    "SI-SNRi of the system before it, which its row names; above 0 is better than before",
}
PROTOCOL = (
    "A value is the mean over mixtures of the mean over their sources. Test mixtures have "
    "speakers of their own, on whom no system was trained or validated here; what was trained "
    "elsewhere, or starts from it, may have heard them. Each mixture is separated whole, as far "
    "as a system does not work in chunks, and as many estimates as references are scored. "
    "Intervals are by bootstrap over speakers: a mixture counts as often as the product of its "
    "speakers' counts"
)


def mixtures_words(entry: Mapping[str, Any]) -> str:
    """What a set of mixtures is.

    Args:
        entry: `corpus` (that it was drawn from, with the `seed`) or `metadata` (the published
            table), `part`, `speakers` (in a mixture), `sample_rate` (Hz), `mode` (`min` or
            `max`), `kind` (`clean`, `both` or `single`), `noise` (words; of kinds with noise).
    """
    origin = (
        f"as {entry['metadata']} has them"
        if "metadata" in entry
        else f"drawn from {entry['corpus']} (seed {entry['seed']})"
    )
    length = {"min": "ending with the shortest source", "max": "as long as the longest source"}
    count = 1 if entry["kind"] == "single" else entry["speakers"]
    words = (
        f"mixtures of {count} speaker{'s' if count > 1 else ''}, {origin}, part {entry['part']}, "
        f"at {entry['sample_rate'] / 1000:g} kHz, {length[entry['mode']]} ({entry['mode']})"
    )
    if entry["kind"] == "clean":
        return f"{words}, without noise"
    return (
        f"{words}, with noise ({entry['noise']}): the references are clean, so that SI-SNR and "
        "SDR count what is left of the noise as an error too"
    )


def excluded_words(table: pd.DataFrame) -> str:
    """Which mixtures were left out, and why; empty if none was.

    Args:
        table: columns `mixture_ID reason`.
    """
    reasons = [
        f"{first_names(sorted(rows['mixture_ID']))} ({reason})"
        for reason, rows in table.groupby("reason")
    ]
    return f"{len(table)} left out: {'; '.join(reasons)}" if reasons else ""


def system_words(name: str, entry: Mapping[str, Any]) -> str:
    """How a system separates.

    Args:
        name: of the system.
        entry: `separator`, `resample` (whether recordings of another rate are taken), `before`
            (the system it is compared with, or None), `origin` (the model, trained elsewhere, that
            the separator is or starts from; None if it was new), `mixtures_trained_on` (sets of
            mixtures of this run).
    """
    if name == BASELINE:
        return "the mixture itself, taken for the estimate of each source: separating nothing"
    trained, origin = entry["mixtures_trained_on"], entry["origin"]
    words = f"separator {entry['separator']}, "
    if trained:
        words += f"trained here on {' and '.join(trained)}"
        words += f" from {origin}, which was trained elsewhere" if origin else ""
    else:
        words += "trained elsewhere" if origin else "not trained"
    if entry["resample"]:
        words += (
            "; mixtures of another rate are resampled to the separator's, and its estimates back"
        )
    if entry["before"] is not None:
        words += f"; before it: {entry['before']}"
    return words


@dataclass(frozen=True)
class PublishedScores:
    """Means over a test set, dB, as others measured them."""

    system: str
    mixtures: str  # the test set
    data: str  # its rate, lengths, noise
    figures: Mapping[str, float]  # si_snri, sdri
    training: str
    source: str


def _paper(mixtures: str, si_snri: float) -> PublishedScores:
    source = "arXiv:2010.13154, abstract"
    return PublishedScores(
        "SepFormer", mixtures, _CLEAN, {"si_snri": si_snri}, "not stated in the abstract", source
    )


def _recipe(
    recipe: str, mixtures: str, data: str, rows: Mapping[str, float]
) -> list[PublishedScores]:
    source = f"github.com/speechbrain/speechbrain, recipes/{recipe}/separation/README.md"
    return [
        PublishedScores("SepFormer", mixtures, data, {"si_snri": value}, training, source)
        for training, value in rows.items()
    ]


def _card(
    model: str, mixtures: str, data: str, si_snri: float, sdri: float, note: str = ""
) -> PublishedScores:
    source = f"huggingface.co/speechbrain/{model}, table of the model card{note}"
    figures = {"si_snri": si_snri, "sdri": sdri}
    name = "SepFormer, published weights"
    return PublishedScores(name, mixtures, data, figures, "not stated there", source)


def _asteroid(model: str, mixtures: str, data: str, si_snri: float, sdri: float) -> PublishedScores:
    source = f"huggingface.co/JorisCos/ConvTasNet_{model}, card: si_sdr_imp, sdr_imp, rounded"
    figures = {"si_snri": si_snri, "sdri": sdri}
    return PublishedScores(
        "Conv-TasNet, Asteroid", mixtures, data, figures, "train-360, 3 s segments", source
    )


# Of SpeechBrain's, rate and lengths are those of the recipes' prepare_data.py.
_CLEAN, _CLEAN_16 = "8 kHz, min, clean", "16 kHz, min, clean"
_NOISY, _NOISY_16 = "8 kHz, min, noise", "16 kHz, min, noise"
_REVERBERANT = "8 kHz, min, noise and reverberation"
_NONE, _SPEED, _DYNAMIC = "no augmentation", "speed augmentation", "dynamic mixing"
PUBLISHED = (
    _paper("WSJ0-2mix", 22.3),
    *_recipe("WSJ0Mix", "WSJ0-2mix", _CLEAN, {_NONE: 20.4, _DYNAMIC: 22.4}),
    _card("sepformer-wsj02mix", "WSJ0-2mix", _CLEAN, 22.4, 22.6),
    PublishedScores(
        "Conv-TasNet",
        "WSJ0-2mix",
        _CLEAN,
        {"si_snri": 15.3, "sdri": 15.6},
        "not stated there",
        "arXiv:1809.07454, as github.com/asteroid-team/asteroid, "
        "egs/wham/ConvTasNet/README.md, quotes it",
    ),
    _paper("WSJ0-3mix", 19.5),
    *_recipe("WSJ0Mix", "WSJ0-3mix", _CLEAN, {_NONE: 17.6, _DYNAMIC: 19.8}),
    _card("sepformer-wsj03mix", "WSJ0-3mix", _CLEAN, 19.8, 20.0),
    *_recipe("WHAMandWHAMR", "WHAM!", _NOISY, {_SPEED: 16.3, _DYNAMIC: 16.5}),
    _card("sepformer-wham", "WHAM!", _NOISY, 16.3, 16.7),
    *_recipe("WHAMandWHAMR", "WHAMR!", _REVERBERANT, {_NONE: 11.4, _SPEED: 13.7, _DYNAMIC: 14.0}),
    _card("sepformer-whamr", "WHAMR!", _REVERBERANT, 13.7, 12.7),
    *_recipe("LibriMix", "Libri2Mix", _CLEAN, {_SPEED: 20.1, _DYNAMIC: 20.4}),
    _card("sepformer-libri2mix", "Libri2Mix", _CLEAN, 20.6, 20.9),
    _asteroid("Libri2Mix_sepclean_8k", "Libri2Mix", _CLEAN, 14.76, 15.11),
    _asteroid("Libri2Mix_sepclean_16k", "Libri2Mix", _CLEAN_16, 15.24, 15.58),
    _asteroid("Libri2Mix_sepnoisy_8k", "Libri2Mix", _NOISY, 11.94, 12.48),
    _asteroid("Libri2Mix_sepnoisy_16k", "Libri2Mix", _NOISY_16, 12.55, 13.06),
    *_recipe("LibriMix", "Libri3Mix", _CLEAN, {_SPEED: 18.4, _DYNAMIC: 19.0}),
    _card("sepformer-libri3mix", "Libri3Mix", _CLEAN, 19.0, 19.4, " (its text says 19.8)"),
    _asteroid("Libri3Mix_sepclean_8k", "Libri3Mix", _CLEAN, 11.98, 12.39),
    _asteroid("Libri3Mix_sepclean_16k", "Libri3Mix", _CLEAN_16, 12.30, 12.77),
    _asteroid("Libri3Mix_sepnoisy_8k", "Libri3Mix", _NOISY, 10.39, 10.93),
    _asteroid("Libri3Mix_sepnoisy_16k", "Libri3Mix", _NOISY_16, 10.28, 10.88),
)

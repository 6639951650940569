"""Figures of merit: error rates of verification, signal ratios, word errors, intervals."""

from etaflow.metrics.bootstrap import Indices, bootstrap_interval, bootstrap_intervals
from etaflow.metrics.signals import (
    mixture_sdr,
    mixture_si_snr,
    pit_si_snr,
    sdr,
    sdr_improvement,
    si_snr,
    si_snr_improvement,
)
from etaflow.metrics.verification import (
    Floats,
    act_dcf,
    cllr,
    detection_error_curve,
    equal_error_point,
    equal_error_rate,
    least_cost,
    min_dcf,
)
from etaflow.metrics.words import (
    character_errors,
    normalize_english,
    normalize_text,
    word_errors,
)

__all__ = [
    "Floats",
    "Indices",
    "act_dcf",
    "bootstrap_interval",
    "bootstrap_intervals",
    "character_errors",
    "cllr",
    "detection_error_curve",
    "equal_error_point",
    "equal_error_rate",
    "least_cost",
    "min_dcf",
    "mixture_sdr",
    "mixture_si_snr",
    "normalize_english",
    "normalize_text",
    "pit_si_snr",
    "sdr",
    "sdr_improvement",
    "si_snr",
    "si_snr_improvement",
    "word_errors",
]

"""Speaker verification: scores of trials, normalised, calibrated, averaged, and their figures."""

from etaflow.verification.calibration import QUALITY, Calibration, pair_quality
from etaflow.verification.figures import COLUMNS, verification_metrics
from etaflow.verification.normalisation import Cohort, as_norm
from etaflow.verification.scores import average_scores, cosine_scores, require_strangers
from etaflow.verification.system import TrialSet

__all__ = [
    "COLUMNS",
    "QUALITY",
    "Calibration",
    "Cohort",
    "TrialSet",
    "as_norm",
    "average_scores",
    "cosine_scores",
    "pair_quality",
    "require_strangers",
    "verification_metrics",
]

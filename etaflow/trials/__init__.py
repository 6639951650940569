"""Trials of speaker verification: pairs of utterances, of one speaker or of two.

A table of trials has the columns `enrolment` and `test` (utterance ids) and `target` (1: one
speaker, 0: two).
"""

from etaflow.trials.generated import generate_trials
from etaflow.trials.listed import read_trials
from etaflow.trials.table import (
    COLUMNS,
    TrialsError,
    read_trials_table,
    repeated_trials,
    speakers_of,
    trials_of_one_file,
)

__all__ = [
    "COLUMNS",
    "TrialsError",
    "generate_trials",
    "read_trials",
    "read_trials_table",
    "repeated_trials",
    "speakers_of",
    "trials_of_one_file",
]

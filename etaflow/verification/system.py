"""Trials with all that they are scored by."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import read_manifest
from etaflow.store import Embeddings, StoreError
from etaflow.trials import COLUMNS, TrialsError, read_trials_table, speakers_of
from etaflow.verification.calibration import Calibration, pair_quality
from etaflow.verification.normalisation import Cohort, as_norm
from etaflow.verification.scores import cosine_scores, require_strangers


@dataclass(frozen=True)
class TrialSet:
    """Trials, the manifest of their corpus, and its embeddings by one encoder.

    `max_seconds`: that the embeddings are of, from the beginning of each; None: all of it.

    Where a method takes a cohort, None means plain cosines; `topk` as for `as_norm`.
    """

    name: str
    trials: pd.DataFrame
    manifest: pd.DataFrame
    embeddings: Embeddings
    max_seconds: float | None = None

    @classmethod
    def read(
        cls,
        name: str,
        trials: Path,
        manifest: Path,
        embeddings: Path,
        max_seconds: float | None = None,
    ) -> "TrialSet":
        """Read the three files."""
        return cls(
            name,
            read_trials_table(trials),
            read_manifest(manifest),
            Embeddings.read(embeddings),
            max_seconds,
        )

    @cached_property
    def speakers(self) -> npt.NDArray[np.str_]:
        """Speakers (N, 2) of each trial's two utterances."""
        return speakers_of(self.trials, self.manifest)

    def require_same_encoder(self, other: Embeddings, what: str) -> None:
        """Raise `StoreError` if other embeddings are not by the encoder of these."""
        kinds = [(each.encoder, each.vectors.shape[1]) for each in (self.embeddings, other)]
        if kinds[0] != kinds[1]:
            raise StoreError(
                f"{what}: embeddings by {other.encoder}, those of the trials by "
                f"{self.embeddings.encoder}"
            )

    def cohort(self, embeddings: Embeddings, manifest: pd.DataFrame) -> Cohort:
        """The speakers of the training split of a corpus, to normalise scores by.

        Raises:
            StoreError: its embeddings are by another encoder, or some are missing.
            TrialsError: a speaker of the trials is among them, or there is no such split.
        """
        self.require_same_encoder(embeddings, "the cohort")
        cohort = Cohort.of_training(embeddings, manifest)
        require_strangers(self.speakers.ravel(), cohort.speakers, "the cohort")
        return cohort

    def scores(self, cohort: Cohort | None, topk: int) -> npt.NDArray[np.float64]:
        """Scores (N,): cosines, normalised if there is a cohort."""
        cosines = cosine_scores(self.trials, self.embeddings)
        if cohort is None:
            return cosines
        return as_norm(self.trials, cosines, self.embeddings, cohort, topk)

    def quality(self, names: Sequence[str]) -> pd.DataFrame:
        """Quality measures of each trial; see `pair_quality`."""
        return pair_quality(names, self.trials, self.embeddings, self.manifest, self.max_seconds)

    def calibration(
        self, other: "TrialSet", quality: Sequence[str], cohort: Cohort | None, topk: int
    ) -> Calibration:
        """Fit a calibration for these trials on others, scored alike.

        Raises:
            StoreError: the others are scored by another encoder.
            TrialsError: the others are these trials, or share a speaker with them, or teach
                nothing.
        """
        if other.trials[COLUMNS].equals(self.trials[COLUMNS]):
            raise TrialsError(
                f"calibration on the very trials that are scored, {other.name}: its figures would "
                "say nothing of other trials; fit it on trials of other speakers"
            )
        where = f"the calibration trials {other.name}"
        self.require_same_encoder(other.embeddings, where)
        require_strangers(self.speakers.ravel(), other.speakers.ravel(), where)
        fitted_on = {
            "trials": other.name,
            "encoder": other.embeddings.encoder,
            "max_seconds": other.max_seconds,
            "as_norm": None if cohort is None else {"topk": topk, "cohort": len(cohort.speakers)},
        }
        scores = other.scores(cohort, topk)
        return Calibration.fit(scores, other.trials["target"], other.quality(quality), fitted_on)

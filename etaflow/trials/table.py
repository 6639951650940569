"""The table of trials."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import first_names, read_table

COLUMNS = ["enrolment", "test", "target"]


class TrialsError(ValueError):
    """Trials that cannot be made, read or scored as asked."""


def read_trials_table(path: str | Path) -> pd.DataFrame:
    """Read a table of trials, or of their scores (then with a column `score` of numbers).

    Raises:
        ManifestError: it is no table.
        TrialsError: a column is missing, there is no trial, or a target is neither 0 nor 1.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise TrialsError(f"{path}: missing column(s) {', '.join(missing)}")
    if table.empty:
        raise TrialsError(f"{path}: has no trials")
    odd = table.loc[~table["target"].isin(["0", "1"]), "target"]
    if len(odd):
        raise TrialsError(f"{path}, line {odd.index[0] + 2}: target {odd.iloc[0]!r} is not 0 or 1")
    table["target"] = table["target"].astype(np.int64)
    if "score" in table:
        table["score"] = pd.to_numeric(table["score"])
    return table


def speakers_of(trials: pd.DataFrame, manifest: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Speakers (N, 2) of the enrolment and of the test utterance of each trial.

    Raises:
        TrialsError: an utterance is not in the manifest.
    """
    speakers = manifest.set_index("utterance_id")["speaker_id"]
    columns = []
    for name in ("enrolment", "test"):
        places = speakers.index.get_indexer(pd.Index(trials[name]))
        if (places < 0).any():
            absent = sorted(set(trials.loc[places < 0, name]))
            raise TrialsError(
                f"{len(absent)} utterance(s) of the trials are not in the manifest: "
                f"{first_names(absent)}"
            )
        columns.append(speakers.to_numpy(str)[places])
    return np.stack(columns, axis=1)


def repeated_trials(trials: pd.DataFrame) -> int:
    """How many trials are of two utterances that were compared before, in whichever order."""
    names = pd.concat([trials["enrolment"], trials["test"]], ignore_index=True)
    places = np.sort(pd.factorize(names)[0].reshape(2, -1), axis=0)
    return int(pd.DataFrame(places.T).duplicated().sum())


def trials_of_one_file(trials: pd.DataFrame, manifest: pd.DataFrame) -> int:
    """How many trials compare a file with itself, or with one of the same bytes."""
    checksums = manifest.set_index("utterance_id")["checksum"]
    one, other = (checksums.loc[trials[side]].to_numpy() for side in ("enrolment", "test"))
    return int((one == other).sum())

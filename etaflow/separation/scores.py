"""How well mixtures were separated, each source of each mixture."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.audio import Waveform
from etaflow.decoding import AudioError
from etaflow.manifest import first_names
from etaflow.metrics import mixture_sdr, mixture_si_snr, pit_si_snr, sdr
from etaflow.progress import progress
from etaflow.separation.score_table import COLUMNS, read_scores
from etaflow.separation.tables import num_sources, read_listed

EXCLUDED_COLUMNS = ["mixture_ID", "reason"]
TOLERANCE = 1e-3  # dB, between scores of one mixture that were written and computed


def score_mixtures(
    mixtures: pd.DataFrame,
    separated: pd.DataFrame | None = None,
    description: str = "scoring",
    threads: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the estimates of mixtures, or the mixtures themselves as what separates nothing.

    Mixtures with a silent reference have no SI-SNR. They are left out, whatever the estimates.

    Args:
        mixtures: as `read_mixtures` reads it.
        separated: as `read_separated` reads it, in the same order; None scores the mixtures.
        description: for the progress.
        threads: that read and score.

    Returns:
        `COLUMNS`, a row a source, all ratios in dB: `source` and `estimate` count from 1, and
        `estimate` is the one that the permutation of the best SI-SNR gives a source (SDR has a
        permutation of its own); it is NaN where mixtures are scored. And `EXCLUDED_COLUMNS`.

    Raises:
        AudioError: a file changed since it was listed, cannot be read, or has another length.
        ValueError: an estimate is silent or a ratio undefined, or no mixture is left.
    """
    rows = mixtures.to_dict("records")
    estimates = [None] * len(rows) if separated is None else separated.to_dict("records")
    names, found = list(mixtures["mixture_ID"]), list[dict[str, Any]]()
    excluded = []
    with ThreadPoolExecutor(threads) as pool:
        scored = pool.map(partial(_score, num_sources(mixtures)), rows, estimates)
        results = progress(scored, description, "mixtures", len(rows))
        for name, result in zip(names, results, strict=True):
            if isinstance(result, str):
                excluded.append((name, result))
            else:
                found += result
    if not found:
        raise ValueError(f"all {len(rows)} mixtures have a silent reference: nothing can be scored")
    table = pd.DataFrame(found).astype({"estimate": "Int64"})
    table["si_snri"] = table["si_snr"] - table["mixture_si_snr"]
    table["sdri"] = table["sdr"] - table["mixture_sdr"]
    return table[COLUMNS], pd.DataFrame(excluded, columns=EXCLUDED_COLUMNS)


def _score(
    sources: int, row: Mapping[Any, Any], estimated: Mapping[Any, Any] | None
) -> list[dict[str, Any]] | str:
    """The rows of a mixture, or why it has no scores."""
    name, numbers = row["mixture_ID"], range(1, sources + 1)
    references = np.stack([_read(row, f"source_{n}") for n in numbers])
    if silent := _silent(references):
        return f"source {silent} is silent"
    mixture = _read(row, "mixture")
    try:
        ratios = {
            "mixture_si_snr": mixture_si_snr(mixture, references),
            "mixture_sdr": mixture_sdr(mixture, references),
        }
        if estimated is None:
            ratios |= {"si_snr": ratios["mixture_si_snr"], "sdr": ratios["mixture_sdr"]}
            order: list[int | None] = [None] * sources
        else:
            estimates = np.stack([_read(estimated, f"estimate_{n}") for n in numbers])
            if silent := _silent(estimates):
                raise ValueError(
                    f"estimate {silent}, {estimated[f'estimate_{silent}_path']}, is silent and has "
                    "no SI-SNR: train the separator further, or leave this mixture out of the "
                    "table, for every system"
                )
            ratios["si_snr"], best = pit_si_snr(estimates, references)
            order = (best + 1).tolist()
            ratios["sdr"], _ = sdr(estimates, references)
    except AudioError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return [
        {"mixture_ID": name, "source": n, "speaker": row[f"speaker_{n}"], "estimate": estimate}
        | {ratio: values[n - 1] for ratio, values in ratios.items()}
        for n, estimate in zip(numbers, order, strict=True)
    ]


def _read(row: Mapping[Any, Any], part: str) -> Waveform:
    path = row[f"{part}_path"]
    signal = read_listed(path, row[f"{part}_checksum"])
    if len(signal) != row["length"]:
        raise AudioError(path, f"has {len(signal)} samples; its table says {row['length']}")
    return signal


def _silent(signals: Waveform) -> int:
    """The number of the first of these signals (S, T) that is constant; 0 if none is."""
    silent = np.flatnonzero(np.ptp(signals, axis=1) == 0)
    return int(silent[0]) + 1 if len(silent) else 0


def scores_before(path: str | Path, scores: pd.DataFrame) -> pd.DataFrame:
    """Read the scores of the system before, to be compared with these.

    Raises:
        ManifestError: it is no table.
        ValueError: as `read_scores`, or they are of other mixtures.
    """
    table = read_scores(path)
    keys, given = ["mixture_ID", "source", "speaker"], ["mixture_si_snr", "mixture_sdr"]
    same = table[keys].astype(str).equals(scores[keys].astype(str))
    if not same or not np.allclose(table[given], scores[given], rtol=0, atol=TOLERANCE):
        raise ValueError(
            f"{path}: scores of other mixtures than these; score both systems on the same ones"
        )
    return table


def check_unseen(config: str | Path, tested: npt.ArrayLike, name: str) -> None:
    """Raise `ValueError` if a separator was trained or validated on speakers of test mixtures.

    Args:
        config: its `config.json`, as far as that says who they were.
        tested: speakers of the mixtures, in any shape.
        name: of the separator.
    """
    facts = json.loads(Path(config).read_text(encoding="utf-8"))
    own = {*np.asarray(tested).ravel().tolist()}
    for fact, what in (("speakers", "trained"), ("validation_speakers", "validated")):
        if seen := sorted({*map(str, facts.get(fact, []))} & own):
            raise ValueError(
                f"{name} was {what} on {len(seen)} of the speakers of these mixtures: "
                f"{first_names(seen)}; test it on speakers that it has not heard"
            )

"""The mixtures of a table separated into files, made once and checked from then on."""

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from etaflow.audio import Waveform, read_ahead, resample, resampled_length, write_lossless
from etaflow.batches import equal_lengths
from etaflow.journal import Journal
from etaflow.manifest import first_names
from etaflow.progress import bar
from etaflow.separation.network import Separator
from etaflow.separation.separate import separate, separate_batch
from etaflow.separation.tables import num_sources, read_listed, separated_columns

# Published scores are of mixtures in one piece; LibriMix has none that is longer than this.
WHOLE_SECONDS = 40.0
BATCH_SECONDS = 60.0  # of mixtures of one length that go through the network together
ADVICE = "check the separator's training, or leave this mixture out"


def check_separator(
    name: str, network: Separator, table: pd.DataFrame, resampling: bool = False
) -> None:
    """Raise `ValueError` unless a separator can separate the mixtures of a table.

    Args:
        name: of the separator.
        network: its network.
        table: as `read_mixtures` reads it.
        resampling: whether mixtures may have another rate than the network.
    """
    sources, rate = num_sources(table), int(table["sample_rate"].iloc[0])
    if network.num_speakers != sources:
        raise ValueError(
            f"{name} separates {network.num_speakers} speakers, the mixtures have {sources}: take "
            f"mixtures of {network.num_speakers} speakers, or a separator of {sources}"
        )
    if network.sample_rate != rate and not resampling:
        raise ValueError(
            f"{name} works at {network.sample_rate} Hz, the mixtures are at {rate} Hz: take "
            f"mixtures at {network.sample_rate} Hz, a separator of {rate} Hz, or set "
            "`resample: true`, which resamples mixtures for it and its estimates back"
        )
    short = [
        mixture
        for mixture, length in zip(table["mixture_ID"], table["length"], strict=True)
        if resampled_length(length, rate, network.sample_rate) < network.shortest
    ]
    if short:
        raise ValueError(
            f"{len(short)} of {len(table)} mixtures are shorter than the {network.shortest} "
            f"samples at {network.sample_rate} Hz that {name} needs: {first_names(short)}; leave "
            "them out, or take another separator"
        )


def write_estimates(
    network: Separator,
    table: pd.DataFrame,
    folder: str | Path,
    key: str,
    weights: str,
    description: str = "separating",
    threads: int = 2,
) -> pd.DataFrame:
    """Separate the mixtures of a table into files, those that are not there yet.

    A journal in the folder says which estimates are there. They are left as they are if they are
    of the same mixture, by its checksum, and key, and whole; else they are made again. Mixtures of
    another rate than the network's are resampled for it, and the estimates back to the mixture's
    rate and length.

    Args:
        network: in evaluation mode, on its device; `check_separator` has passed it.
        table: as `read_mixtures` reads it.
        folder: for `estimate_1`, `estimate_2` …, 32-bit float WAV as loud as the network makes it.
        key: of all else that the estimates depend on.
        weights: how far to trust the network, see `etaflow.models.WEIGHTS`.
        description: for the progress.
        threads: that read mixtures.

    Returns:
        `etaflow.separation.tables.separated_columns`, in order of the mixtures.

    Raises:
        AudioError: a mixture changed since it was listed, or a file cannot be read or written.
        ValueError: what comes out for a mixture is not finite.
    """
    folder, own_rate, rate = Path(folder), network.sample_rate, int(table["sample_rate"].iloc[0])
    parts = [f"estimate_{n}" for n in range(1, network.num_speakers + 1)]
    names, samples = list(table["mixture_ID"]), list(table["length"])
    listed = list(zip(table["mixture_path"], table["mixture_checksum"], strict=True))
    made_of = [f"{checksum} {key}" for _, checksum in listed]
    files = [{part: folder / part / f"{name}.wav" for part in parts} for name in names]
    with Journal(folder / "journal.jsonl") as journal:
        entries = [journal.find(*facts) for facts in zip(names, made_of, files, strict=True)]
        left = {index for index, entry in enumerate(entries) if entry is None}
        # Padding would change results, as networks take norms over time: only mixtures of exactly
        # one length go together. Batches are made up as before a kill, so that the result is the
        # same to the bit.
        lengths = [resampled_length(count, rate, own_rate) for count in samples]
        batches = [
            batch
            for batch in equal_lengths(lengths, round(BATCH_SECONDS * own_rate))
            if not left.isdisjoint(batch)
        ]

        def write(batch: Sequence[int], separated: Sequence[Waveform]) -> None:
            for index, estimates in zip(batch, separated, strict=True):
                if index in left:
                    for path, estimate in zip(files[index].values(), estimates, strict=True):
                        back = resample(estimate, own_rate, rate)[: samples[index]]
                        write_lossless(path, back, rate)
                    entries[index] = journal.add(names[index], made_of[index], files[index])
                    shown.update()

        with (
            bar(len(names), description, "mixtures", len(names) - len(left)) as shown,
            ThreadPoolExecutor(1) as pool,
        ):
            writing: Future[None] | None = None
            reading = [[(*listed[index], own_rate) for index in batch] for batch in batches]
            waveforms = read_ahead(reading, threads, read_listed)
            for batch, mixtures in zip(batches, waveforms, strict=True):
                separated = _separated(network, mixtures, [names[index] for index in batch])
                if writing:
                    writing.result()
                writing = pool.submit(write, batch, separated)
            if writing:
                writing.result()
    rows = [
        {"mixture_ID": name, "length": count, "sample_rate": rate, "weights": weights}
        | {"mixture_checksum": checksum}
        | {f"{part}_path": str(path) for part, path in own.items()}
        | {f"{part}_checksum": entry["checksums"][part] for part in parts if entry}
        for name, count, (_, checksum), own, entry in zip(
            names, samples, listed, files, entries, strict=True
        )
    ]
    return pd.DataFrame(rows)[separated_columns(len(parts))]


def _separated(
    network: Separator, mixtures: Sequence[Waveform], names: Sequence[str]
) -> list[Waveform]:
    """The speakers (S, T) of each of these mixtures (T,) of one length."""
    chunk = min(round(WHOLE_SECONDS * network.sample_rate), network.longest or sys.maxsize)
    if len(mixtures) > 1 and len(mixtures[0]) <= chunk:
        separated = list(separate_batch(network, np.stack(mixtures)))
    else:
        separated = []
        for name, mixture in zip(names, mixtures, strict=True):
            try:
                separated.append(separate(network, mixture, WHOLE_SECONDS))
            except ValueError as error:
                raise ValueError(f"{name}: {error}; {ADVICE}") from error
    for name, estimates in zip(names, separated, strict=True):
        if not np.isfinite(estimates).all():
            raise ValueError(f"{name}: the separated speakers are not finite; {ADVICE}")
    return separated

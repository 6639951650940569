"""Mixtures by LibriMix's metadata (Cosentino et al., "LibriMix", 2020, arXiv:2005.11262).

A row names the utterances and the noise of a mixture, each with its gain. Gain, resampling
(`scipy.signal.resample_poly`), length and sum follow JorisCos/LibriMix, in its order and in
float32, for a corpus and a noise of 16 kHz. The published program then rounds to 16 bits and clips
at 1, each file for itself; nothing is rounded or clipped here, so that a mixture is the sum of its
parts. At 8 kHz the samples are as exact as SciPy's filter, which some versions applied in float64.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.audio import BLOCK, Waveform, write_lossless
from etaflow.decoding import open_audio
from etaflow.manifest import first_names
from etaflow.separation.noise import Floats, read_noise

Mode = Literal["min", "max"]
Kind = Literal["clean", "both", "single"]

RATES = (8_000, 16_000)
MOST = 9  # speakers in a mixture
SPEAKERS = [f"speaker_{number}_ID" for number in range(1, MOST + 1)]
STEP = 2.0**-23  # of 24-bit audio
NAME = r"[^/\x00-\x1f]+"  # of a file


class MetadataError(ValueError):
    """A table or a row that describes no mixture."""


@dataclass(frozen=True)
class Roots:
    """The folders that the paths of a metadata table start from."""

    speech: Path
    noise: Path | None = None


@dataclass(frozen=True)
class Mixture:
    """A mixture and its parts, float32."""

    name: str  # `mixture_ID`
    kind: Kind
    sample_rate: int  # Hz
    mixture: Waveform  # (T,), the sum of the parts
    sources: Waveform  # (S, T)
    noise: Waveform | None  # (T,); None in a clean mixture

    def write(self, folder: str | Path, suffix: str = ".wav") -> Path:
        """Write the parts to `s1`, `s2`, … and `noise`, and at last the mixture to `mix_KIND`.

        As `.flac` the parts are rounded to 24 bits and the mixture is the sum of them as they
        are then, so that the files add up exactly.

        Returns:
            The path of the mixture: where it exists, the parts do.

        Raises:
            AudioError: as `write_lossless`.
        """
        parts = {f"s{index + 1}": source for index, source in enumerate(self.sources)}
        if self.noise is not None:
            parts["noise"] = self.noise
        mixture = self.mixture
        if suffix == ".flac":
            rounded = {name: np.rint(part.astype(float) / STEP) for name, part in parts.items()}
            parts = {name: (part * STEP).astype(np.float32) for name, part in rounded.items()}
            mixture = (np.sum(list(rounded.values()), axis=0) * STEP).astype(np.float32)
        for name, part in parts.items():
            write_lossless(Path(folder, name, self.name + suffix), part, self.sample_rate)
        path = Path(folder, f"mix_{self.kind}", self.name + suffix)
        write_lossless(path, mixture, self.sample_rate)
        return path


def metadata_columns(speakers: int) -> list[str]:
    """The columns of LibriMix's metadata for so many speakers in a mixture."""
    sources = [
        f"source_{index + 1}_{what}" for index in range(speakers) for what in ("path", "gain")
    ]
    return ["mixture_ID", *sources, "noise_path", "noise_gain"]


def count_sources(columns: Iterable[str]) -> int:
    """How many sources a table with these columns has a path of."""
    return sum(name.startswith("source_") and name.endswith("_path") for name in columns)


def speakers_per_mixture(columns: Sequence[str]) -> int:
    """How many speakers a metadata table with these columns mixes.

    Raises:
        MetadataError: columns of LibriMix's metadata are missing.
    """
    speakers = count_sources(columns)
    missing = [name for name in metadata_columns(max(1, speakers)) if name not in columns]
    if missing:
        raise MetadataError(f"the mixtures' metadata have no column {', '.join(missing)}")
    return speakers


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Read a metadata CSV, of LibriMix or generated; gains are read to the last digit.

    Raises:
        MetadataError: it is no CSV, columns are missing, there is no row, a mixture stands twice,
            or its name cannot be that of its files.
    """
    try:
        table = pd.read_csv(
            path,
            dtype={"mixture_ID": str, "noise_path": str, **dict.fromkeys(SPEAKERS, str)},
            keep_default_na=False,
            float_precision="round_trip",
        )
        speakers_per_mixture(list(table.columns))
    except ValueError as error:
        raise MetadataError(f"{path}: {error}") from error
    if table.empty:
        raise MetadataError(f"{path}: no mixture")
    twice = table["mixture_ID"][table["mixture_ID"].duplicated()]
    if len(twice):
        raise MetadataError(f"{path}: mixture {twice.iloc[0]!r} stands there twice")
    unfit = table["mixture_ID"][~table["mixture_ID"].str.fullmatch(NAME)]
    if len(unfit):
        raise MetadataError(f"{path}: mixture {unfit.iloc[0]!r} cannot be the name of its files")
    return table


def with_manifest(metadata: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """A published table of the recordings of a manifest.

    Args:
        metadata: as `read_metadata` reads it. Its paths of sources are the ends of the manifest's.
        manifest: of the corpus.

    Returns:
        The same rows, with the manifest's paths, and its speakers in `speaker_1_ID`, …

    Raises:
        MetadataError: recordings are not in the manifest, or more than one of it has such a path,
            or a mixture is of one speaker twice.
    """
    table = metadata.copy()
    numbers = range(1, speakers_per_mixture(list(table.columns)) + 1)
    depth = len(Path(table["source_1_path"].iloc[0]).parts)
    ends = manifest["path"].map(lambda path: "/".join(Path(path).parts[-depth:]))
    known = manifest.assign(end=ends).set_index("end")[["path", "speaker_id"]]
    wanted = pd.unique(table[[f"source_{number}_path" for number in numbers]].to_numpy().ravel())
    missing = sorted(set(wanted) - set(known.index))
    if missing:
        raise MetadataError(
            f"{len(missing)} recordings of the metadata are not in the manifest of the corpus: "
            f"{first_names(missing)}; add their subset to the corpus, or see its rejected files"
        )
    known = known.loc[wanted]
    if known.index.has_duplicates:
        twice = known.index[known.index.duplicated()][0]
        raise MetadataError(f"several recordings of the manifest are {twice}")
    for number in numbers:
        found = known.loc[table[f"source_{number}_path"]]
        table[f"source_{number}_path"] = found["path"].to_numpy()
        table[f"speaker_{number}_ID"] = found["speaker_id"].to_numpy()
    alone = table[[f"speaker_{n}_ID" for n in numbers]].nunique(axis=1) < len(numbers)
    if alone.any():
        raise MetadataError(f"{table['mixture_ID'][alone].iloc[0]}: a speaker is in it twice")
    return table


def mix_row(
    row: Mapping[str, Any],
    roots: Roots,
    sample_rate: int = 8_000,
    mode: Mode = "min",
    kind: Kind = "clean",
) -> Mixture:
    """Make the mixture that a row of the metadata describes.

    Files of another rate than 16 kHz are resampled from theirs; sources with several channels are
    averaged, of noise the first is taken.

    Args:
        row: by column, of a table as `read_metadata` reads it.
        roots: where its paths start.
        sample_rate: of the mixture, 8,000 or 16,000 Hz.
        mode: `min` ends with the shortest source, `max` pads the others with zeros to the longest.
        kind: `clean` is all speakers, `both` all and the noise, `single` the first and the noise,
            as long as if all were in it.

    Raises:
        MetadataError: the row has no such columns, or a gain that is none.
        AudioError: a file cannot be read.
        ValueError: another rate, mode or kind, or no folder of noise where one is needed.
    """
    for value, allowed in (
        (sample_rate, RATES),
        (mode, get_args(Mode)),
        (kind, get_args(Kind)),
    ):
        if value not in allowed:
            raise ValueError(f"mixtures with {value!r}: allowed are {', '.join(map(str, allowed))}")
    speakers = speakers_per_mixture(list(row.keys()))
    read = [
        _read_source(roots.speech / str(row[f"source_{index + 1}_path"]))
        for index in range(speakers)
    ]
    gains = [_gain(row, f"source_{index + 1}_gain") for index in range(speakers)]
    parts = [
        _resampled(source * gain, rate, sample_rate)
        for (source, rate), gain in zip(read, gains, strict=True)
    ]
    size = (min if mode == "min" else max)(map(len, parts))
    sources = [_fitted(part, size) for part in parts]
    if kind == "single":
        sources = sources[:1]
    addends, noise = list(sources), None
    if kind != "clean":
        lengths = [(len(source), rate) for source, rate in read]
        samples, rate = read_noise(str(row["noise_path"]), roots.noise, lengths)
        scaled = samples * _gain(row, "noise_gain")
        addends.append(_fitted(_resampled(scaled, rate, sample_rate), size))
        noise = addends[-1].astype(np.float32)
    mixture = np.zeros(size, np.float32)
    for addend in addends:
        mixture += addend
    return Mixture(str(row["mixture_ID"]), kind, sample_rate, mixture, np.stack(sources), noise)


def _gain(row: Mapping[str, Any], column: str) -> float:
    try:
        gain = float(row[column])
    except ValueError:
        gain = np.nan
    if not (np.isfinite(gain) and gain > 0):
        raise MetadataError(f"{row['mixture_ID']}: {column} is {row[column]!r}, no positive number")
    return gain


def _read_source(path: Path) -> tuple[Waveform, int]:
    with open_audio(path) as sound:
        blocks = [block.mean(axis=1, dtype=np.float32) for block in sound.blocks(BLOCK)]
        return np.concatenate(blocks), sound.rate


def _resampled(signal: Floats, source_rate: int, target_rate: int) -> Floats:
    from scipy.signal import resample_poly  # half of SciPy, which readers need not wait for

    resampled: Floats = resample_poly(signal, target_rate, source_rate)
    return resampled


def _fitted(signal: Floats, size: int) -> npt.NDArray[np.floating]:
    return np.pad(signal[:size], (0, max(0, size - len(signal))))

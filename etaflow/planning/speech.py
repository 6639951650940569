"""How much speech corpora have: counted in manifests where they are, else as published."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from etaflow.corpora import sizes
from etaflow.manifest import shard_names

UNKNOWN = "unknown until `snakemake manifests`"
_COLUMNS = ["speaker_id", "session_id", "split", "num_samples", "sample_rate"]


@dataclass(frozen=True)
class Speech:
    """Some speech; None stands for what is not known.

    Attributes:
        hours: of speech.
        utterances: how many.
        speakers: how many.
        squares: the sum over speakers of the squares of their hours, which prematching grows with;
            of published corpora the least that it can be, all speakers being equal.
        source: of these numbers.
    """

    hours: float | None
    utterances: float | None
    speakers: float | None
    squares: float | None
    source: str

    def part(self, share: float) -> "Speech":
        """A share of the speakers."""

        def of(value: float | None) -> float | None:
            return None if value is None else value * share

        return Speech(
            of(self.hours), of(self.utterances), of(self.speakers), of(self.squares), self.source
        )


NOTHING_KNOWN = Speech(None, None, None, None, UNKNOWN)


@cache
def _shard(path: str, modified: int) -> pd.DataFrame:
    """The columns of a shard's manifest that count, and `seconds`; read once while it stays."""
    types: Any = dict.fromkeys(_COLUMNS[:3], str)
    try:
        table = pd.read_csv(
            path, sep="\t", usecols=_COLUMNS, dtype=types, quoting=3, na_filter=False
        )
        table["seconds"] = table["num_samples"] / table["sample_rate"]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no manifest: {error}; `snakemake manifests --forcerun "
            f"build_manifest_{Path(path).parent.name}` makes it again"
        ) from error
    return table.drop(columns=["num_samples", "sample_rate"])


def read_shard(path: Path) -> pd.DataFrame:
    """`speaker_id`, `session_id`, `split` and `seconds` of a shard's utterances."""
    return _shard(str(path), path.stat().st_mtime_ns)


def counted(table: pd.DataFrame, source: str) -> Speech:
    """What rows of `read_shard` come to."""
    hours = table.groupby("speaker_id", sort=False)["seconds"].sum().to_numpy() / 3600
    return Speech(hours.sum(), len(table), len(hours), float(np.square(hours).sum()), source)


class Corpus:
    """A corpus of the config: its shards, and both sides of its split."""

    def __init__(self, name: str, entry: Mapping[str, Any], results: Path) -> None:
        """Look for manifests under `results`."""
        self.name, self.entry = name, entry
        files = [results / "manifests" / name / f"{s}.tsv" for s in shard_names(entry["shards"])]
        self._files = {file.stem: file for file in files}
        self.listed = all(file.is_file() for file in files)

    def table(self, split: str | None = None) -> pd.DataFrame | None:
        """The rows of all shards, of one split or all; None before there are manifests."""
        if not self.listed:
            return None
        table = pd.concat([read_shard(file) for file in self._files.values()], ignore_index=True)
        return table if split is None else table[table["split"] == split]

    def whole(self, split: str | None = None) -> Speech:
        """The speech of a split, or of all."""
        table = self.table(split)
        return self._published(split) if table is None else counted(table, "manifests")

    def shard(self, shard: str, split: str | None = None) -> Speech:
        """The speech of a shard; of a published corpus a mean one."""
        if not self.listed:
            found = self._published(split).part(1 / len(self._files))
            return found if found.hours is None else replace(found, source=f"{found.source}, mean")
        table = read_shard(self._files[shard])
        return counted(table if split is None else table[table["split"] == split], "manifests")

    def subsets(self) -> list[sizes.Size]:
        """The published subsets that it is of; none if there are no numbers."""
        entry, kind = self.entry, self.entry["kind"]
        if kind in ("librispeech", "libritts"):
            published = sizes.LIBRISPEECH if kind == "librispeech" else sizes.LIBRITTS
            known = [published.get(name) for name in entry["subsets"]]
        elif kind == "voxceleb1":
            known = list(sizes.VOXCELEB1.values())
        elif kind == "vctk":
            known = list(sizes.VCTK.values())
        elif kind == "kathbath":
            known = [sizes.KATHBATH.get(entry["language"])]
        elif kind in sizes.SPOKEN_SECONDS:
            said = entry["speakers"] * entry["sentences"]
            hours = said * sizes.SPOKEN_SECONDS[kind] / 3600
            known = [sizes.Size("train", hours, said, entry["speakers"], None)]
        else:
            return []
        return [size for size in known if size] if all(known) else []

    def _published(self, split: str | None) -> Speech:
        found = self.subsets()
        share = 1.0
        if split is not None and self.entry.get("split"):
            test = float(self.entry["split"]["test_fraction"])
            share = test if split == "test" else 1 - test
        elif split is not None:
            found = [size for size in found if size.split == split]
        if not self.subsets() or any(size.hours is None for size in found):
            return NOTHING_KNOWN
        hours = [size.hours or 0.0 for size in found]
        counts = [size.utterances for size in found]
        squares = sum(h * h / size.speakers for h, size in zip(hours, found, strict=True))
        return Speech(
            sum(hours),
            None if None in counts else sum(count or 0 for count in counts),
            sum(size.speakers for size in found),
            squares,
            sizes.SOURCES[self.entry["kind"]],
        ).part(share)


def corpora_of(config: Mapping[str, Any]) -> dict[str, Corpus]:
    """All corpora of a config, by name."""
    results = Path("results", str(config["run"]))
    return {name: Corpus(name, entry, results) for name, entry in config["corpora"].items()}

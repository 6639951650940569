"""What masked prediction predicts: the cluster of each frame (arXiv 2106.07447, section II-A)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.cluster import MiniBatchKMeans
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from etaflow.atomic import atomic_file
from etaflow.audio import SAMPLE_RATE, Waveform

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
CEPSTRA = 13
# Of WavLM: frame i of Kaldi's features sees the samples that frame i of WavLM sees.
WINDOW_MS, HOP_MS = 25.0, 20.0


class CodesError(ValueError):
    """Codes that cannot be read or made."""


def mfcc(waveform: Waveform) -> Floats:
    """Cepstra and their first and second differences (frames, 39) of (T,) at 16 kHz.

    There are as many frames as WavLM makes, floor((T - 400) / 320) + 1.
    """
    cepstra = kaldi.mfcc(
        torch.from_numpy(waveform)[None] * 32768,  # Kaldi counts in steps of 16 bits
        sample_frequency=SAMPLE_RATE,
        frame_length=WINDOW_MS,
        frame_shift=HOP_MS,
        num_ceps=CEPSTRA,
        dither=0.0,
    ).T
    first = compute_deltas(cepstra)
    return torch.cat([cepstra, first, compute_deltas(first)]).T.numpy()


def standardised(frames: Floats) -> Floats:
    """Frames (T, D) of an utterance at zero mean and unit variance.

    Who speaks, and in which room, is mostly in what all frames share: clusters without it are
    nearer to phones.
    """
    return np.asarray((frames - frames.mean(axis=0)) / (frames.std(axis=0) + 1e-5), np.float32)


def fit_clusters(frames: Iterable[Floats], count: int, seed: int) -> Floats:
    """Centres (count, D) of frames (T, D) of many utterances, by mini-batch k-means.

    Raises:
        CodesError: there are fewer frames than clusters.
    """
    together = np.concatenate(list(frames))
    if len(together) < count:
        raise CodesError(f"{len(together)} frames for {count} clusters: take more utterances")
    fit = MiniBatchKMeans(count, batch_size=10_000, n_init=5, random_state=seed).fit(together)
    return np.asarray(fit.cluster_centers_, np.float32)


def nearest_codes(frames: Floats, centres: Floats) -> npt.NDArray[np.int16]:
    """The nearest (by Euclidean distance) of some centres (K, D) to each frame (T, D): (T,)."""
    products = frames @ centres.T
    return np.argmin((centres**2).sum(axis=1) / 2 - products, axis=1).astype(np.int16)


@dataclass(frozen=True)
class Codes:
    """The codes of many utterances, in one safetensors file.

    Attributes:
        clusters: K; codes are 0 to K - 1.
        utterance_ids: in order.
        stops: where each utterance's codes end (U,).
        codes: of all of them, one after the other (frames,).
        origin: what the clusters are of, for the reader.
    """

    clusters: int
    utterance_ids: list[str]
    stops: Integers
    codes: npt.NDArray[np.int16]
    origin: dict[str, Any]

    @classmethod
    def of(
        cls,
        clusters: int,
        found: Iterable[tuple[str, npt.NDArray[np.int16]]],
        origin: dict[str, Any],
    ) -> "Codes":
        """Gather the codes (frames,) of utterances."""
        names, parts = zip(*found, strict=True)
        stops = np.cumsum([len(part) for part in parts])
        return cls(clusters, list(names), stops, np.concatenate(parts), origin)

    def items(self) -> Iterator[tuple[str, npt.NDArray[np.int16]]]:
        """Each utterance's id and codes (frames,)."""
        yield from zip(self.utterance_ids, np.split(self.codes, self.stops[:-1]), strict=True)

    def write(self, path: str | Path) -> None:
        """Write, whole or not at all."""
        facts = {
            "clusters": self.clusters,
            "utterance_ids": self.utterance_ids,
            "origin": self.origin,
        }
        with atomic_file(path) as part:
            save_file(
                {"codes": self.codes, "stops": self.stops.astype(np.int64)},
                part,
                {"etaflow": json.dumps(facts)},
            )

    @classmethod
    def read(cls, path: str | Path) -> "Codes":
        """Read what `write` wrote.

        Raises:
            CodesError: the file is missing, or is no such file.
        """
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads(file.metadata()["etaflow"])
                stops, codes = file.get_tensor("stops"), file.get_tensor("codes")
            return cls(facts["clusters"], facts["utterance_ids"], stops, codes, facts["origin"])
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise CodesError(f"{path}: not readable codes ({error})") from error

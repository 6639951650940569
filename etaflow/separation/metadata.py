"""Metadata of mixtures drawn from any corpus, by the recipe of LibriMix.

Cosentino et al., "LibriMix", 2020: each speaker is brought to a loudness drawn from -33 to
-25 LUFS, the noise to one from -38 to -30; a part that would reach a peak of 1 is scaled to 0.9
instead, and a mixture above 0.9 to 0.9. LibriMix's own tables are published and cannot be drawn
again: read those.
"""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from etaflow.audio import SAMPLE_RATE, Waveform, file_checksum
from etaflow.decoding import AudioError
from etaflow.loudness import integrated_loudness
from etaflow.manifest import hold_out
from etaflow.separation.mixing import MetadataError, Roots, metadata_columns, mix_row

LOUDNESS = (-33.0, -25.0)  # LUFS, of speech
NOISE_LOUDNESS = (-38.0, -30.0)
PEAK = 0.9
TRIES = 100  # to draw a mixture that was not drawn before


def split_by_speaker(
    table: pd.DataFrame, held: Mapping[str, int], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Split a manifest into parts that share no speaker.

    Args:
        table: rows of a manifest.
        held: how many speakers each other part than `train` gets; `train` has all that remain.
        seed: of the draw.

    Returns:
        The rows of `train` and of each part of `held`.

    Raises:
        ManifestError: there are too few speakers.
        ValueError: `held` has a part of the name `train`.
    """
    if "train" in held:
        raise ValueError("the part `train` gets the speakers that remain, not a number of them")
    remaining = sorted(set(table["speaker_id"]))
    parts = {}
    for name, count in held.items():
        remaining, drawn = hold_out(remaining, count, seed, "speakers")
        parts[name] = table[table["speaker_id"].isin(drawn)]
    return {"train": table[table["speaker_id"].isin(remaining)], **parts}


def generate_metadata(
    table: pd.DataFrame,
    count: int,
    speakers_per_mixture: int,
    roots: Roots,
    seed: int = 0,
    noises: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Draw mixtures of different speakers, each mixture once, with gains as LibriMix sets them.

    All speakers are in as many mixtures, give or take one, and so are a speaker's utterances and
    the noises, but where that would draw a mixture again. Gains are those of the mixture of full
    length, with its noise, at 16 kHz.

    Args:
        table: rows of a manifest to draw from, all of one side of a split by speaker.
        count: how many mixtures.
        speakers_per_mixture: two or more.
        roots: where the paths of the manifest and of the noises start.
        seed: of the draw. A mixture's noise, if synthesised, and levels depend on it and on the
            mixture, on nothing else.
        noises: paths to take noise from (`list_noises`); None synthesises pink noise, for which
            `noise_path` is `pink:SEED`.

    Returns:
        The columns of LibriMix's metadata, followed by `speaker_1_ID` … of its `_info` tables.

    Raises:
        MetadataError: there are fewer speakers than a mixture needs, or fewer different mixtures
            than asked for; or no noise, or a part of a mixture is silent.
        AudioError: a file cannot be read, or has another checksum than in the manifest.
    """
    if count < 1 or speakers_per_mixture < 2:
        raise MetadataError("at least one mixture of at least two speakers is drawn")
    if noises is not None and not len(noises):
        raise MetadataError("the list of noises is empty")
    table = table.sort_values("utterance_id").set_index("utterance_id")
    draws = _draw(
        table["speaker_id"], count, speakers_per_mixture, np.random.default_rng([seed, 0])
    )
    noise_generator = np.random.default_rng([seed, 1])
    noise_names = _cycled(sorted(noises), count, noise_generator) if noises else None
    used = table.loc[sorted({utterance for draw in draws for utterance in draw})]
    for path, checksum in zip(used["path"], used["checksum"], strict=True):
        _check_unchanged(roots.speech / path, checksum)
    rows = []
    for index, draw in enumerate(draws):
        name = "_".join(draw)
        own_seed = _hash(seed, name)
        noise = noise_names[index] if noise_names else f"pink:{own_seed % 2**32}"
        row: dict[Hashable, Any] = dict.fromkeys(metadata_columns(speakers_per_mixture), 1.0)
        row |= {"mixture_ID": name, "noise_path": noise}
        for number, utterance in enumerate(draw, 1):
            row[f"source_{number}_path"] = table.loc[utterance, "path"]
            row[f"speaker_{number}_ID"] = table.loc[utterance, "speaker_id"]
        rows.append(row | _gains(row, roots, np.random.default_rng(own_seed)))
    return pd.DataFrame(rows)


def _hash(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _check_unchanged(path: Path, checksum: str) -> None:
    try:
        found = file_checksum(path)
    except OSError as error:
        raise AudioError(path, f"unreadable: {error.strerror}") from error
    if found != checksum:
        raise AudioError(path, "changed since its manifest was made; make that again, then go on")


def _cycled(values: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    """`count` of these values in a drawn order, each as often as any other, give or take one."""
    rounds = [generator.permutation(len(values)) for _ in range(-(-count // len(values)))]
    return [values[index] for index in np.concatenate(rounds)[:count]]


def _draw(
    owner: "pd.Series[str]", count: int, size: int, generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """`count` different groups of utterances of `size` speakers each.

    Drawn are those that were used least, by chance where several were. `owner` tells the speaker
    of each utterance id.
    """
    utterances = {str(name): list(own.index) for name, own in owner.groupby(owner)}
    speakers = sorted(utterances)
    if len(speakers) < size:
        raise MetadataError(f"mixtures of {size} speakers, and there are {len(speakers)}")
    used_speakers = np.zeros(len(speakers), int)
    used = {speaker: np.zeros(len(own), int) for speaker, own in utterances.items()}
    seen: set[frozenset[str]] = set()
    draws: list[tuple[str, ...]] = []
    while len(draws) < count:
        for attempt in range(TRIES):
            chosen = _least(used_speakers, size, generator)
            # Where the least used were always together before, any utterance will do.
            places = [
                int(_least(used[speakers[speaker]], 1, generator)[0])
                if attempt < TRIES // 2
                else int(generator.integers(len(used[speakers[speaker]])))
                for speaker in chosen
            ]
            group = tuple(
                str(utterances[speakers[speaker]][place])
                for speaker, place in zip(chosen, places, strict=True)
            )
            if frozenset(group) not in seen:
                break
        else:
            raise MetadataError(
                f"{count} mixtures asked for; after {len(draws)} no other was found, "
                "there are too few utterances"
            )
        seen.add(frozenset(group))
        draws.append(group)
        used_speakers[chosen] += 1
        for speaker, place in zip(chosen, places, strict=True):
            used[speakers[speaker]][place] += 1
    return draws


def _least(
    used: "np.ndarray[Any, np.dtype[np.int_]]", size: int, generator: np.random.Generator
) -> "np.ndarray[Any, np.dtype[np.intp]]":
    """The places of the `size` smallest counts, in a drawn order, ties broken by chance."""
    order = np.lexsort((generator.random(len(used)), used))[:size]
    return generator.permutation(order)


def _gains(
    row: Mapping[Hashable, Any], roots: Roots, generator: np.random.Generator
) -> dict[str, float]:
    """The gains of a row, whose own are all 1, by the loudness drawn and the peaks there are."""
    whole = mix_row({str(key): value for key, value in row.items()}, roots, 16_000, "max", "both")
    assert whole.noise is not None
    names = [f"source_{index + 1}" for index in range(len(whole.sources))]
    parts = dict(zip(names, whole.sources, strict=True)) | {"noise": whole.noise}
    gains = {}
    for name, part in parts.items():
        loudness = integrated_loudness(part, SAMPLE_RATE)
        if math.isinf(loudness):
            raise MetadataError(
                f"{row[name + '_path']}: below -70 LUFS in the mixture {row['mixture_ID']}; "
                "leave it out"
            )
        target = generator.uniform(*(NOISE_LOUDNESS if name == "noise" else LOUDNESS))
        gains[name] = 10 ** ((target - loudness) / 20)
        peak = _peak(part)
        if peak * gains[name] >= 1:
            gains[name] = PEAK / peak
    mixture = np.sum([gains[name] * part for name, part in parts.items()], axis=0)
    weight = min(1.0, PEAK / _peak(mixture))
    return {f"{name}_gain": weight * gain for name, gain in gains.items()}


def _peak(signal: Waveform) -> float:
    return float(np.abs(signal).max())

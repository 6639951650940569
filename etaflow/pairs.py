"""Who shall say what in whose voice: pairs of sources and targets, and the targets' references."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.manifest import first_names, read_table

COLUMNS = ["utterance_id", "source_id", "source_speaker", "target_speaker", "references"]


class PairError(ValueError):
    """Pairs that cannot be made as asked."""


def _is_file_name(name: str) -> bool:
    """Whether it names a file within a folder, in the one way to write it."""
    path = PurePosixPath(name)
    return name == str(path) and name != "." and not path.is_absolute() and ".." not in path.parts


def _completed(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """All columns, from `source_id` and `target_speaker`, `references` where there are some."""
    speakers = manifest.set_index("utterance_id")["speaker_id"]
    pairs["source_speaker"] = pairs["source_id"].map(speakers)
    if "references" not in pairs:
        pairs["references"] = ""
    if "utterance_id" not in pairs:
        pairs["utterance_id"] = pairs["source_id"] + "-to-" + pairs["target_speaker"]
    odd = [name for name in pairs["utterance_id"] if not _is_file_name(name)]
    if odd:
        raise PairError(f"utterance_id {odd[0]!r} is no file name")
    same = pairs[pairs["source_speaker"] == pairs["target_speaker"]]
    if len(same):
        raise PairError(
            f"source and target are one speaker: {first_names(list(same['utterance_id']))}"
        )
    twice = pairs.loc[pairs["utterance_id"].duplicated(), "utterance_id"]
    if len(twice):
        raise PairError(
            f"pairs of the same name: {first_names(list(twice))}; tell them apart by a column "
            "utterance_id"
        )
    return pairs[COLUMNS].reset_index(drop=True)


def _require(kind: str, names: Sequence[str], known: pd.Series) -> None:
    unknown: list[str] = sorted(set(names) - {*known})
    if unknown:
        raise PairError(f"{kind} not in the manifest: {first_names(unknown)}")


def sample_pairs(manifest: pd.DataFrame, sources_per_speaker: int, seed: int) -> pd.DataFrame:
    """Draw source utterances and give each to every other speaker of the test split.

    Args:
        manifest: see `etaflow.manifest`.
        sources_per_speaker: utterances of each test speaker, fewer if there are fewer.
        seed: of the draw, which for a speaker does not depend on the other speakers.

    Returns:
        The columns `COLUMNS`; sources in order of id. `references` is empty, which means all test
        utterances of the target.

    Raises:
        PairError: the test split has fewer than two speakers.
    """
    test = manifest[manifest["split"] == "test"]
    speakers = sorted(test["speaker_id"].unique())
    if len(speakers) < 2:
        raise PairError(
            f"the test split has {len(speakers)} speaker(s), conversion needs two: "
            "see `split` of the corpus in the config"
        )
    rows = []
    for speaker in speakers:
        ids = sorted(test.loc[test["speaker_id"] == speaker, "utterance_id"])
        generator = np.random.default_rng([seed, *speaker.encode()])
        drawn = generator.choice(ids, min(sources_per_speaker, len(ids)), replace=False)
        rows += [
            (str(source), target)
            for source in sorted(drawn)
            for target in speakers
            if target != speaker
        ]
    return _completed(pd.DataFrame(rows, columns=["source_id", "target_speaker"]), manifest)


def cross_pairs(
    manifest: pd.DataFrame, sources: Sequence[str], targets: Sequence[str]
) -> pd.DataFrame:
    """Each source utterance to each target speaker, but for a source's own speaker.

    Raises:
        PairError: an utterance or speaker is not in the manifest, or stands twice, or no pair is
            left.
    """
    _require("source utterance(s)", sources, manifest["utterance_id"])
    _require("target speaker(s)", targets, manifest["speaker_id"])
    speakers = manifest.set_index("utterance_id")["speaker_id"]
    rows = [
        (source, target) for source in sources for target in targets if speakers[source] != target
    ]
    if not rows:
        raise PairError("no pair is left: each source is the target's own")
    return _completed(pd.DataFrame(rows, columns=["source_id", "target_speaker"]), manifest)


def read_pairs(path: str | Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """Pairs from a TSV.

    Its columns: `source_id`, and `target_speaker` or `references` or both. `references` are
    utterances of the target, parted by spaces; empty for all test utterances of the target.
    `utterance_id` names the result; by default it is SOURCE-to-TARGET.

    Raises:
        ManifestError: it is no table.
        PairError: a column is missing or unknown, an utterance or speaker is not in the manifest,
            references are of several speakers or of another than the target, or one stands twice,
            or a name of a result is no file name.
    """
    pairs = read_table(path)
    allowed = {"utterance_id", "source_id", "target_speaker", "references"}
    if unknown := sorted(set(map(str, pairs)) - allowed):
        raise PairError(f"{path}: unknown column(s) {first_names(unknown)}")
    if "source_id" not in pairs or not {"target_speaker", "references"} & set(pairs):
        raise PairError(f"{path}: needs the columns source_id, and target_speaker or references")
    if pairs.empty:
        raise PairError(f"{path}: has no pairs")
    try:
        return _completed(_with_targets(pairs, manifest), manifest)
    except PairError as error:
        raise PairError(f"{path}: {error}") from error


def _with_targets(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Check references, and fill in the target where they alone are given."""
    _require("source utterance(s)", list(pairs["source_id"]), manifest["utterance_id"])
    if "target_speaker" in pairs:
        _require("target speaker(s)", list(pairs["target_speaker"]), manifest["speaker_id"])
    if "references" not in pairs:
        return pairs
    listed = [text.split() for text in pairs["references"]]
    _require("reference(s)", [name for names in listed for name in names], manifest["utterance_id"])
    speakers = manifest.set_index("utterance_id")["speaker_id"]
    targets: list[str] = []
    for line, names in enumerate(listed, start=2):
        if len(set(names)) < len(names):
            raise PairError(f"line {line}: a reference stands twice ({' '.join(names)})")
        found: list[str] = sorted({str(speakers[name]) for name in names})
        if "target_speaker" in pairs:
            found = sorted({*found, str(pairs["target_speaker"].iloc[line - 2])})
        if len(found) != 1:
            raise PairError(
                f"line {line}: references of {len(found)} speakers ({first_names(found)}), or of "
                "another than the target"
            )
        targets += found
    return pairs.assign(target_speaker=targets)


def make_pairs(settings: Mapping[str, Any], manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The pairs of a config's `conversion.pairs`: sampled by `seed`, crossed, or from a table."""
    if "table" in settings:
        return read_pairs(settings["table"], manifest)
    if "sources" in settings:
        return cross_pairs(manifest, settings["sources"], settings["targets"])
    return sample_pairs(manifest, settings["sources_per_speaker"], seed)


def recordings_of(speaker: str, manifest: pd.DataFrame) -> list[str]:
    """A speaker's utterances of the test split, or all if there are none, in order of id.

    Args:
        speaker: in the manifest.
        manifest: see `etaflow.manifest`, with `utterance_id` as index.
    """
    own = manifest[manifest["speaker_id"] == speaker]
    test = own[own["split"] == "test"]
    return sorted((test if len(test) else own).index)


def choose_references(
    num_frames: Sequence[int], limit: int | None, seed: int, target: str
) -> list[tuple[int, int]]:
    """Which reference utterances to take, and how many frames of each.

    Args:
        num_frames: of each utterance.
        limit: frames in all, or None for everything there is.
        seed: of the order in which utterances are taken. A smaller limit takes a part of what a
            larger one does.
        target: name of the speaker, who has an order of their own.

    Returns:
        (number of the utterance, frames from its beginning). The last one is cut at the limit; if
        there are fewer frames than that, all are taken.
    """
    if limit is None:
        return list(enumerate(num_frames))
    order: npt.NDArray[np.int64] = np.random.default_rng([seed, *target.encode()]).permutation(
        len(num_frames)
    )
    chosen, left = [], limit
    for index in order.tolist():
        if left <= 0:
            break
        chosen.append((index, min(left, num_frames[index])))
        left -= num_frames[index]
    return chosen

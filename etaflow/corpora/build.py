"""From the config of a corpus to its manifest."""

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from filelock import FileLock

from etaflow.audio import AudioError, AudioInfo, check_audio
from etaflow.corpora import espeak, folder, kathbath, librispeech, libritts, mini, vctk, voxceleb
from etaflow.corpora.base import CorpusError, Listing, Recording, Rejected
from etaflow.corpora.splits import assign_splits
from etaflow.manifest import COLUMNS, check_manifest, shard_of
from etaflow.progress import progress

KINDS: dict[str, ModuleType] = {
    "mini": mini,
    "espeak": espeak,
    "librispeech": librispeech,
    "libritts": libritts,
    "vctk": vctk,
    "voxceleb1": voxceleb,
    "kathbath": kathbath,
    "folder": folder,
}


def _kind(config: Mapping[str, Any]) -> ModuleType:
    if config["kind"] not in KINDS:
        raise ValueError(f"corpus of kind {config['kind']!r}: allowed are {', '.join(KINDS)}")
    return KINDS[config["kind"]]


def fetch(config: Mapping[str, Any], root: str | Path, workers: int = 1) -> None:
    """Fetch or make a corpus under `root`.

    Raises:
        ValueError: the kind is unknown.
        CorpusError: the corpus cannot be fetched.
    """
    kind = _kind(config)
    if kind is folder:
        raise CorpusError("a corpus of kind folder is found at its `root`, not fetched")
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    # Corpora of one kind may share a root and their archives: the second waits for the first.
    with FileLock(root.with_name(f".{root.name}.lock")):
        if kind in (mini, espeak):
            kind.fetch(root, config, workers)
        else:
            kind.fetch(root, config)


def recordings(config: Mapping[str, Any], root: str | Path) -> Listing:
    """List a corpus: recordings, and files that cannot be one, with the reason.

    Args:
        config: the corpus's entry in the config.
        root: the folder that holds the corpus, found or fetched.

    Raises:
        ValueError: the kind is unknown, or the folder's pattern is wrong.
        CorpusError: the corpus is not there.
    """
    return list(_kind(config).recordings(Path(root), config))


def inventory(config: Mapping[str, Any], root: str | Path) -> dict[str, Any]:
    """What a corpus is: its `kind`, number of `files`, and a `digest` of their names, sizes, texts.

    Raises:
        ValueError, CorpusError: as `recordings`.
    """
    digest = hashlib.blake2b(digest_size=16)
    listing = sorted(recordings(config, root), key=lambda item: str(item.path))
    for item in listing:
        name = item.path.relative_to(Path(root))
        size = item.path.stat().st_size if item.path.exists() else None
        text = item.text if isinstance(item, Recording) else ""
        digest.update(f"{name}\0{size}\0{text}\0".encode(errors="surrogateescape"))
    return {"kind": config["kind"], "files": len(listing), "digest": digest.hexdigest()}


def _name_problem(recording: Recording) -> str | None:
    """Why a manifest has no room for this recording, if so."""
    if not (recording.speaker_id and recording.utterance_id):
        return "empty speaker or utterance id"
    names = [recording.utterance_id, recording.speaker_id, recording.session_id]
    for name in [*names, str(recording.path)]:
        if any(character in name for character in "\t\r\n"):
            return "tab or line break in the path or an id"
        try:
            name.encode()
        except UnicodeEncodeError:
            return "the path is not UTF-8"
    return None


def _printable(path: Path) -> str:
    text = str(path).encode(errors="backslashreplace").decode()
    return text.replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


def _check_unique(candidates: Iterable[Recording]) -> None:
    first: dict[str, Path] = {}
    for recording in candidates:
        other = first.setdefault(recording.utterance_id, recording.path)
        if other is not recording.path:
            raise CorpusError(
                f"utterance id {recording.utterance_id!r} stands for two files, {other} and "
                f"{recording.path}: remove one, or tell them apart in the pattern"
            )


def _examine(path: Path) -> AudioInfo | str:
    """What is known of a file, or why it cannot be used."""
    try:
        return check_audio(path)
    except AudioError as error:
        return error.reason


def _examine_all(paths: list[Path], workers: int) -> Iterator[AudioInfo | str]:
    if workers == 1:
        yield from progress(map(_examine, paths), "check audio", "file", total=len(paths))
        return
    # spawn: a fork would copy the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = pool.map(_examine, paths, chunksize=16)
        yield from progress(results, "check audio", "file", total=len(paths))


def rejection_summary(reasons: Iterable[str]) -> str:
    """Reasons with their counts, the most frequent first; figures of single files are left out."""
    short = [reason.split(":")[0].split(" (")[0] for reason in reasons]
    return ", ".join(f"{count} × {reason}" for reason, count in Counter(short).most_common())


def examine(
    listing: Listing, workers: int = 1
) -> tuple[list[tuple[Recording, AudioInfo]], list[Rejected]]:
    """Decode every file of a listing: the recordings that can be used, and all other files.

    Args:
        listing: as `recordings` or `list_tree` give it.
        workers: processes that check files.

    Raises:
        CorpusError: an utterance id stands twice.
    """
    rejected = [item for item in listing if isinstance(item, Rejected)]
    candidates = []
    for item in listing:
        if isinstance(item, Recording):
            problem = _name_problem(item)
            if problem:
                rejected.append(Rejected(item.path, problem))
            else:
                candidates.append(item)
    _check_unique(candidates)
    usable = []
    results = _examine_all([recording.path for recording in candidates], workers)
    for recording, result in zip(candidates, results, strict=True):
        if isinstance(result, str):
            rejected.append(Rejected(recording.path, result))
        else:
            usable.append((recording, result))
    return usable, rejected


def build_manifest(
    config: Mapping[str, Any], root: str | Path, workers: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List a corpus, decode every file, assign splits and shards.

    Args:
        config: the corpus's entry in the config.
        root: the folder that `fetch` was given.
        workers: processes that check files.

    Returns:
        The manifest (`etaflow.manifest.COLUMNS`), by utterance id, and the rejected files
        (`path`, `reason`), by path.

    Raises:
        ValueError: the kind, pattern or split is wrong.
        CorpusError: the corpus is not there, an utterance id stands twice, or no file can be used.
    """
    listing = recordings(config, root)
    split = config.get("split")
    if split is None and any(isinstance(r, Recording) and r.split is None for r in listing):
        raise CorpusError(f"a corpus of kind {config['kind']!r} needs a `split` in the config")
    found, rejected = examine(listing, workers)
    if not found:
        raise CorpusError(
            f"{root}: none of {len(rejected)} files can be used: "
            + (rejection_summary(item.reason for item in rejected) or "there is no audio file")
        )
    usable = [recording for recording, _ in found]
    by, fraction = (split["by"], split["test_fraction"]) if split else ("speaker", 0.0)
    rows = [
        (
            recording.utterance_id,
            recording.speaker_id,
            recording.session_id,
            side,
            str(recording.path),
            info.num_samples,
            info.sample_rate,
            " ".join(recording.text.split()),
            shard_of(recording.speaker_id, config["shards"]),
            info.checksum,
        )
        for (recording, info), side in zip(
            found, assign_splits(usable, by, fraction, config["seed"]), strict=True
        )
    ]
    manifest = check_manifest(pd.DataFrame(rows, columns=COLUMNS))
    out = pd.DataFrame(
        sorted((_printable(item.path), item.reason) for item in rejected),
        columns=["path", "reason"],
    )
    return manifest.sort_values("utterance_id", ignore_index=True), out

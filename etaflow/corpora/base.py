"""What every corpus is made of: candidate recordings, and files that are not even that."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class CorpusError(ValueError):
    """A corpus that cannot be fetched, or has nothing to offer."""


@dataclass(frozen=True)
class Recording:
    """A candidate: its audio has not been opened yet."""

    utterance_id: str
    speaker_id: str
    session_id: str
    path: Path
    text: str = ""
    split: str | None = None  # None: to be assigned


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be a recording, and why."""

    path: Path
    reason: str


Listing = list[Recording | Rejected]


def walk(root: Path) -> Iterator[Path]:
    """All files under `root` in order of their paths, without hidden files and folders.

    Symbolic links are followed, but no folder is entered twice, so that a loop of links ends.

    Raises:
        CorpusError: `root` is not a folder.
    """
    if not root.is_dir():
        raise CorpusError(f"{root}: no such folder; check the `root` of the corpus in the config")
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def read_text(path: Path) -> str:
    """Read a transcript in UTF-8.

    Raises:
        ValueError: it cannot be read; the message has the reason, not the path.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"transcript unreadable: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"transcript is not UTF-8: {error.reason} at {error.start}") from error


def corpus_folder(root: Path, name: str) -> Path:
    """`root/name` if there is one, else `root`: a user may point at either."""
    return root / name if (root / name).is_dir() else root

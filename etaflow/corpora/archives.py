"""Published archives: fetched once, resumed, verified, unpacked."""

import http.client
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.request import Request, urlopen

from etaflow.atomic import atomic_file
from etaflow.corpora.base import CorpusError
from etaflow.download import (
    BLOCK_BYTES,
    HEADERS,
    TIMEOUT_SECONDS,
    ChecksumError,
    DownloadError,
    download,
    read_checksums,
    record_checksum,
    sha256_of,
    shown,
)
from etaflow.progress import progress
from etaflow.retry import file_size

COMPLETED = ".completed"  # the marker that lhotse's recipes leave, too


@dataclass(frozen=True)
class Part:
    """A published file: an archive, or a piece of one."""

    url: str = field(repr=False)  # its query, which may hold a secret, is never shown
    name: str
    sha256: str | None  # hexadecimal; None if none is published

    @property
    def shown(self) -> str:
        """The url without its query."""
        return shown(self.url)


def _is_whole(file: Path, part: Part) -> bool:
    return part.sha256 is not None and file.is_file() and sha256_of(file) == part.sha256


def _remote_size(part: Part) -> int | None:
    try:
        request = Request(part.url, headers=HEADERS, method="HEAD")
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, http.client.HTTPException, TypeError, ValueError):
        return None  # no network is found out by the download itself; some servers know no HEAD


def _check_space(parts: Sequence[Part], root: Path) -> None:
    sizes = [_remote_size(part) or file_size(root / part.name) for part in parts]
    had = sum(file_size(root / part.name) for part in parts)
    # The archive and its contents are on disk together; audio hardly compresses.
    needed = 2 * sum(sizes) - had
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CorpusError(
            f"{root}: {parts[0].shown} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )


def _download(part: Part, file: Path, record: Path | None) -> None:
    try:
        found = download(part.url, file, part.sha256)
        if record is not None:
            record_checksum(record, part.shown, found)
    except ChecksumError as error:
        raise CorpusError(
            f"{file}: SHA-256 expected {part.sha256}, found {error.found}. Delete the file and "
            f"run again; if that does not help, {part.shown} no longer holds what was published"
        ) from error
    except DownloadError as error:
        raise CorpusError(str(error)) from error


def _join(parts: Sequence[Part], root: Path, archive: Path) -> None:
    with atomic_file(archive) as joined, joined.open("wb") as stream:
        for part in parts:
            with (root / part.name).open("rb") as piece:
                shutil.copyfileobj(piece, stream, BLOCK_BYTES)


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for name in progress(opened.namelist(), f"unpack {archive.name}", "file"):
                # Drops `..` and roots from names, and makes no links.
                opened.extract(name, folder)
        return
    with tarfile.open(archive) as tar:
        for member in progress(tar, f"unpack {archive.name}", "file"):
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise CorpusError(f"{archive}: refused to unpack {member.name!r}: {error}") from (
                    error
                )


def _with_recorded(parts: Sequence[Part], record: Path) -> list[Part]:
    try:
        known = read_checksums(record)
    except DownloadError as error:
        raise CorpusError(str(error)) from error
    return [replace(part, sha256=part.sha256 or known.get(part.shown)) for part in parts]


def fetch_archive(
    parts: Sequence[Part], root: Path, contents: Path, record: Path | None = None
) -> None:
    """Download an archive to `root`, verify it, unpack it and delete it.

    Does nothing if `contents` was completed before. Errors of the network are tried again a few
    times; an interrupted download is resumed by the next call; a wrong file is left where it is.

    Args:
        parts: a .tar, .tar.gz or .zip file, or the pieces of one in order.
        root: where a tar is unpacked; a zip, which has no folder of its own, goes to `contents`.
        contents: the folder that the archive fills.
        record: JSON of checksums by url. Where none is published, that of the first download is
            put there, and all later ones have to match it.

    Raises:
        CorpusError: the download fails or is cut short, a checksum is wrong, the disk is too
            small, or the archive wants to write outside its folder.
    """
    if (contents / COMPLETED).is_file():
        return
    root.mkdir(parents=True, exist_ok=True)
    if record is not None:
        parts = _with_recorded(parts, record)
    pieces = [root / part.name for part in parts]
    archive = pieces[0] if len(parts) == 1 else root / f"{contents.name}.joined"
    if len(parts) == 1 or not archive.is_file():
        missing = [part for part in parts if not _is_whole(root / part.name, part)]
        if missing:
            _check_space(parts, root)
        for part in missing:
            _download(part, root / part.name, record)
        if len(parts) > 1:
            _join(parts, root, archive)
    if len(parts) > 1:
        for piece in pieces:
            piece.unlink(missing_ok=True)  # joined: archive, pieces and contents would be thrice
    _extract(archive, contents if zipfile.is_zipfile(archive) else root)
    if not contents.is_dir():
        raise CorpusError(f"{archive}: no {contents.name} was in it")
    (contents / COMPLETED).touch()
    archive.unlink()

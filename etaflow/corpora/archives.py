"""Published archives: fetched once, resumed, verified, unpacked."""

import hashlib
import http.client
import shutil
import socket
import tarfile
import urllib.request
import zipfile
from pathlib import Path

from etaflow.corpora.base import CorpusError
from etaflow.progress import progress

TIMEOUT_SECONDS = 60.0
COMPLETED = ".completed"  # the marker that lhotse's recipes leave, too


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remote_size(url: str) -> int | None:
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None  # no network is found out by the download itself; some servers know no HEAD


def _download(url: str, archive: Path) -> None:
    # Imported here: lhotse imports torch, and a corpus that is already there needs neither.
    from lhotse.utils import resumable_download

    size = _remote_size(url)
    had = archive.stat().st_size if archive.exists() else 0
    # The archive and its contents are on disk together; audio hardly compresses.
    needed = 2 * size - had if size is not None else 0
    free = shutil.disk_usage(archive.parent).free
    if free < needed:
        raise CorpusError(
            f"{archive.parent}: {url} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # the helper has none, and would wait for ever
    try:
        resumable_download(url, archive)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(f"{url}: {error}. What came is in {archive}: run again to resume") from (
            error
        )
    finally:
        socket.setdefaulttimeout(timeout)
    came = archive.stat().st_size
    if size is not None and came < size:
        raise CorpusError(f"{url}: {came} of {size} bytes came to {archive}: run again to resume")


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for name in progress(opened.namelist(), f"unpack {archive.name}", "file"):
                opened.extract(name, folder)  # drops `..` and roots from names
        return
    with tarfile.open(archive) as tar:
        for member in progress(tar, f"unpack {archive.name}", "file"):
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise CorpusError(f"{archive}: refused to unpack {member.name!r}: {error}") from (
                    error
                )


def fetch_archive(url: str, sha256: str, root: Path, contents: Path) -> None:
    """Download an archive to `root`, verify it, unpack it and delete it.

    Does nothing if `contents` was completed before. An interrupted download is resumed by the next
    call; a wrong archive is left where it is.

    Args:
        url: of a .tar.gz or .zip file.
        sha256: its published checksum, hexadecimal.
        root: where a tar is unpacked; a zip, which has no folder of its own, goes to `contents`.
        contents: the folder that the archive fills.

    Raises:
        CorpusError: the download fails or is cut short, the checksum is wrong, the disk is too
            small, or the archive wants to write outside its folder.
    """
    if (contents / COMPLETED).is_file():
        return
    root.mkdir(parents=True, exist_ok=True)
    archive = root / url.rsplit("/", 1)[1]
    if not archive.is_file() or _sha256(archive) != sha256:
        _download(url, archive)
        found = _sha256(archive)
        if found != sha256:
            raise CorpusError(
                f"{archive}: SHA-256 expected {sha256}, found {found}. Delete the file and run "
                f"again; if that does not help, {url} no longer holds what was published"
            )
    _extract(archive, contents if zipfile.is_zipfile(archive) else root)
    if not contents.is_dir():
        raise CorpusError(f"{archive}: no {contents.name} was in it")
    (contents / COMPLETED).touch()
    archive.unlink()

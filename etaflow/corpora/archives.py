"""Published archives: fetched once, resumed, verified, unpacked."""

import hashlib
import http.client
import shutil
import ssl
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from etaflow.atomic import atomic_file
from etaflow.corpora.base import CorpusError
from etaflow.progress import bar, progress
from etaflow.retry import file_size, keep_trying

TIMEOUT_SECONDS = 60.0
BLOCK_BYTES = 1 << 20
COMPLETED = ".completed"  # the marker that lhotse's recipes leave, too
# Some sites answer 403 to what does not call itself a browser.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; etaflow)"}


@dataclass(frozen=True)
class Part:
    """A published file: an archive, or a piece of one."""

    url: str = field(repr=False)  # its query, which may hold a secret, is never shown
    name: str
    sha256: str  # hexadecimal

    @property
    def shown(self) -> str:
        """The url without its query."""
        return self.url.partition("?")[0]


def _is_whole(file: Path, part: Part) -> bool:
    return file.is_file() and _sha256(file) == part.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def _transient(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    if isinstance(error, URLError):
        return not isinstance(error.reason, ssl.SSLCertVerificationError)
    network = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
    return isinstance(error, network)


def _transfer(part: Part, file: Path) -> None:
    """Add what is missing to `file`, over one connection."""
    had = file_size(file)
    headers = HEADERS | ({"Range": f"bytes={had}-"} if had else {})
    try:
        answer = urlopen(Request(part.url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if had and error.code == 416:
            return  # nothing is missing; whether it is right the checksum tells
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise CorpusError(f"{part.shown} gave a web page in place of {part.name}")
        if answer.status != 206:
            had = 0  # the server cannot resume
        length = answer.headers["Content-Length"]
        size = had + int(length) if length else None
        with file.open("ab") as stream, bar(size, part.name, "byte", had) as shown:
            shown.unit_scale = True
            stream.truncate(had)
            while block := answer.read1(BLOCK_BYTES):
                stream.write(block)
                shown.update(len(block))
    came = file_size(file)
    if size is not None and came < size:
        raise ConnectionError(f"cut short, {came} of {size} bytes came")


def _download(part: Part, file: Path) -> None:
    try:
        keep_trying(lambda: _transfer(part, file), _transient, file)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{part.shown}: {error}. What came is in {file}: run again to resume"
        ) from error
    if not _is_whole(file, part):
        raise CorpusError(
            f"{file}: SHA-256 expected {part.sha256}, found {_sha256(file)}. Delete the file and "
            f"run again; if that does not help, {part.shown} no longer holds what was published"
        )


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


def fetch_archive(parts: Sequence[Part], root: Path, contents: Path) -> None:
    """Download an archive to `root`, verify it, unpack it and delete it.

    Does nothing if `contents` was completed before. Errors of the network are tried again a few
    times; an interrupted download is resumed by the next call; a wrong file is left where it is.

    Args:
        parts: a .tar.gz or .zip file, or the pieces of one in order.
        root: where a tar is unpacked; a zip, which has no folder of its own, goes to `contents`.
        contents: the folder that the archive fills.

    Raises:
        CorpusError: the download fails or is cut short, a checksum is wrong, the disk is too
            small, or the archive wants to write outside its folder.
    """
    if (contents / COMPLETED).is_file():
        return
    root.mkdir(parents=True, exist_ok=True)
    pieces = [root / part.name for part in parts]
    archive = pieces[0] if len(parts) == 1 else root / f"{contents.name}.joined"
    if len(parts) == 1 or not archive.is_file():
        missing = [part for part in parts if not _is_whole(root / part.name, part)]
        if missing:
            _check_space(parts, root)
        for part in missing:
            _download(part, root / part.name)
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

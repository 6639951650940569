"""A file from the web: fetched, resumed, tried again, verified."""

import hashlib
import http.client
import json
import ssl
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from etaflow.atomic import write_json
from etaflow.progress import bar
from etaflow.retry import file_size, keep_trying

TIMEOUT_SECONDS = 60.0
BLOCK_BYTES = 1 << 20
# Some sites answer 403 to what does not call itself a browser.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; etaflow)"}


class DownloadError(ValueError):
    """A file that cannot be fetched."""


class ChecksumError(DownloadError):
    """A file that came whole, but is another than expected."""

    def __init__(self, url: str, expected: str, found: str) -> None:
        super().__init__(f"{shown(url)}: SHA-256 expected {expected}, found {found}")
        self.found = found


def shown(url: str) -> str:
    """A url without its query, which may hold a secret."""
    return url.partition("?")[0]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_checksums(record: Path) -> dict[str, str]:
    """The checksums on record, by url; none if there is no such file.

    Raises:
        DownloadError: the file is damaged.
    """
    try:
        found: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DownloadError(
            f"{record} is damaged ({error}): repair it, or delete it to trust the next downloads"
        ) from error
    return found


def record_checksum(record: Path, url: str, sha256: str) -> None:
    """Put the checksum of a first download on record, for all later ones to match."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(record.with_name(f".{record.name}.lock")):
        write_json(record, read_checksums(record) | {url: sha256})


def _is_secure(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")


class _SecureRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not _is_secure(newurl):
            raise DownloadError(
                f"{shown(req.full_url)} redirects to {shown(newurl)}: that is not https, and there "
                "is no checksum to verify the file by"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transient(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    if isinstance(error, URLError):
        return not isinstance(error.reason, ssl.SSLCertVerificationError)
    network = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
    return isinstance(error, network)


def _open(url: str, start: int, verified: bool) -> HTTPResponse:
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    opener = build_opener() if verified else build_opener(_SecureRedirects)
    answer: HTTPResponse = opener.open(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    return answer


def _version_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.version")


def _transfer(url: str, file: Path, verified: bool) -> None:
    """Add what is missing to `file`, over one connection.

    Where no checksum will tell, two versions of a file must not be joined: the ETag of the first
    part is kept beside it, and what comes has to bear the same.
    """
    note = _version_file(file)
    had = file_size(file) if verified or note.is_file() else 0
    try:
        answer = _open(url, had, verified)
    except HTTPError as error:
        error.close()
        if had and error.code == 416:
            if verified:
                return  # nothing is missing; whether it is right the checksum tells
            file.unlink()
            raise ConnectionError("whether all came is not known: it begins anew") from error
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise DownloadError(f"{shown(url)} gave a web page in place of {file.name}")
        etag = answer.headers["ETag"]
        version = f"{url}\n{etag}"
        if answer.status != 206:
            had = 0  # the server cannot resume
            file.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            if etag and not verified:
                note.write_text(version, encoding="utf-8")
        elif not verified and note.read_text(encoding="utf-8") != version:
            file.unlink()
            raise ConnectionError("the file there is another than before: it begins anew")
        length = answer.headers["Content-Length"]
        size = had + int(length) if length else None
        with file.open("ab") as stream, bar(size, file.name, "byte", had) as progress:
            progress.unit_scale = True
            while block := answer.read1(BLOCK_BYTES):
                stream.write(block)
                progress.update(len(block))
    came = file_size(file)
    if size is not None and came < size:
        raise ConnectionError(f"cut short, {came} of {size} bytes came")


def download(url: str, file: Path, sha256: str | None = None) -> str:
    """Fetch a file and return its SHA-256, hexadecimal.

    Errors of the network are tried again a few times. What an interrupted download left in `file`
    the next call goes on with: if there is a checksum to verify the whole by, or the server says
    by an ETag that the file is still the same; else it begins anew.

    Args:
        url: with a checksum any; without one only https (or this machine), redirects included.
        file: where to write; its folder exists.
        sha256: the expected checksum, hexadecimal, if it is known.

    Raises:
        ChecksumError: the file came, and is left in place, but its checksum is another.
        DownloadError: the url is refused, or the download fails or is cut short.
    """
    if not (sha256 or _is_secure(url)):
        raise DownloadError(f"{shown(url)}: without a checksum, only https is taken")
    try:
        keep_trying(lambda: _transfer(url, file, sha256 is not None), _transient, file)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{shown(url)}: {error}. What came is in {file}: run again to resume"
        ) from error
    found = sha256_of(file)
    if sha256 not in (None, found):
        raise ChecksumError(url, str(sha256), found)
    _version_file(file).unlink(missing_ok=True)
    return found

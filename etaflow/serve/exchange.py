"""Requests to a server, tried again where that helps, and what went wrong in words."""

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3 import Retry, encode_multipart_formdata
from urllib3.exceptions import InvalidHeader

FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 16
_BUSY = (429, 503)
HEALTH = "/v1/health"

Field = tuple[str, str | tuple[str, bytes, str]]
Progress = Callable[[str, int, int], None]


class ClientError(RuntimeError):
    """A request that cannot be made, or that got no good answer."""


@dataclass(frozen=True)
class Answer:
    """What a server answered: its headers and its whole body."""

    headers: requests.structures.CaseInsensitiveDict[str]
    body: bytes


class _Body(io.BytesIO):
    """A body that says how much of it was sent."""

    def __init__(self, body: bytes, progress: Progress) -> None:
        super().__init__(body)
        self.size, self.progress = len(body), progress

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.progress("sending" if block else "waiting for the answer", self.tell(), self.size)
        return block


def form(fields: Sequence[Field]) -> tuple[bytes, str]:
    """The body of a multipart form, and its content type."""
    return encode_multipart_formdata(fields)


class Exchange:
    """Asks one server.

    Args:
        url: of the server.
        api_key: that it wants, or None.
        timeout: seconds without a byte of the answer after which a request is given up.
        retries: how often a request is repeated after a lost connection, 429 or 503.
        progress: is told what is being done, and how many bytes of how many are sent.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        retries: int,
        progress: Progress | None,
    ) -> None:
        self.url = _checked(url)
        self._key, self._retries = api_key, retries
        self._timeout = (CONNECT_SECONDS, timeout)
        self._progress = progress or (lambda stage, done, total: None)
        self._session = requests.Session()
        # Given even without a key: else a .netrc would take the place of the key.
        self._session.auth = self._sign
        # A proxy cannot reach this machine's own address.
        host = urlsplit(self.url).hostname or ""
        self._session.trust_env = host not in ("127.0.0.1", "::1", "localhost")

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def ask(self, path: str, body: bytes | None = None, content_type: str | None = None) -> Answer:
        """GET `path`, or POST a body to it.

        After a lost connection, and where a server is busy (429, 503), it is asked again: after
        0.5 s, 1 s, 2 s …, or when the server says, but at most 30 s later.

        Raises:
            ClientError: there is no server, or it is no server of etaflow's, or it refuses.
        """
        for left in range(self._retries, -1, -1):
            wait = min(FIRST_WAIT_SECONDS * 2 ** (self._retries - left), MAX_WAIT_SECONDS)
            try:
                status, answer = self._once(path, body, content_type)
            except _Lost as error:
                if not left:
                    raise ClientError(
                        f"no server answers at {self.url} ({error}); start one with `etaflow serve "
                        "--bundle results/RUN/bundle --port 8000`, or give the URL of another"
                    ) from error
                reason = "no connection"
            else:
                if status == 200:
                    return answer
                if status not in _BUSY or not left:
                    raise self._refusal(path, status, answer)
                reason = "the server is busy"
                wait = _retry_after(answer, wait)
            self._progress(f"{reason}, again in {wait:g} s", 0, len(body or b""))
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, body: bytes | None, content_type: str | None) -> tuple[int, Answer]:
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                self.url + path,
                data=None if body is None else _Body(body, self._progress),
                headers={"Content-Type": content_type} if content_type else None,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                return response.status_code, Answer(response.headers, self._whole(response))
        except requests.exceptions.SSLError as error:
            raise ClientError(f"{self.url}: no secure connection ({_reason(error)})") from error
        except requests.exceptions.ReadTimeout as error:
            raise ClientError(
                f"{self.url} took the request, but did not answer for {self._timeout[1]:g} s"
            ) from error
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise _Lost(_reason(error)) from error
        except (requests.exceptions.RequestException, UnicodeError) as error:
            raise ClientError(f"{self.url}: {_reason(error)}") from error

    def _whole(self, response: requests.Response) -> bytes:
        blocks, size = [], 0
        for block in response.iter_content(_BLOCK_BYTES):
            size += len(block)
            if size > MAX_ANSWER_BYTES:
                raise ClientError(f"{self.url} answers more than {MAX_ANSWER_BYTES:,} bytes")
            blocks.append(block)
        return b"".join(blocks)

    def stranger(self) -> ClientError:
        """To raise where an answer is not what a server of etaflow's would say."""
        return ClientError(
            f"what answers at {self.url} is no server of etaflow's, or a proxy that does not reach "
            "one: give the URL that `etaflow serve` named when it started"
        )

    def _refusal(self, path: str, status: int, answer: Answer) -> ClientError:
        """What to raise of an answer that is not 200."""
        if 300 <= status < 400:
            return ClientError(
                f"{self.url} redirects to {answer.headers.get('Location')}: give the URL there"
            )
        try:
            facts = read_object(answer)
        except ValueError:
            return self.stranger()
        if path == HEALTH and facts.get("status") == "starting":
            return ClientError(f"{self.url} still loads its models: try again later")
        if "detail" not in facts or (path == HEALTH and status == 404):
            return self.stranger()
        detail = facts["detail"]
        words = detail if isinstance(detail, str) else json.dumps(detail)
        if status == 401 and self._key:
            return ClientError(f"{self.url} does not take the key in ETAFLOW_API_KEY: {words}")
        if status == 401:
            return ClientError(f"{self.url} wants a key, set ETAFLOW_API_KEY to one: {words}")
        return ClientError(f"{self.url} refuses ({status}): {words}")


class _Lost(Exception):
    """A connection that was not made, or that broke off."""


def read_object(answer: Answer) -> dict[str, Any]:
    """The JSON object that an answer is.

    Raises:
        ValueError: it is something else.
    """
    try:
        value = json.loads(answer.body)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _checked(url: str) -> str:
    """A URL without the slash behind."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise ClientError(f"{url}: {error}") from error
    if parts.username or parts.password:
        raise ClientError("the URL has a name or password in it: set ETAFLOW_API_KEY to a key")
    if not usable or parts.query or parts.fragment:
        raise ClientError(f"{url} is no URL of a server; one is http://127.0.0.1:8000")
    return url.rstrip("/")


def _retry_after(answer: Answer, otherwise: float) -> float:
    """Seconds that a server asks to wait, as a number or a date, bounded."""
    value = answer.headers.get("Retry-After")
    try:
        wait = Retry().parse_retry_after(value) if value else otherwise
    except (InvalidHeader, ValueError, OverflowError):
        wait = otherwise
    return min(max(wait, 0.0), MAX_WAIT_SECONDS)


def _reason(error: BaseException) -> str:
    """What lies under the layers of an error of requests, without addresses in memory."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return str(error) or type(error).__name__

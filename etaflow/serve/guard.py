"""What stands before Gradio and the routes: it refuses other sites, and what no page asks for.

Gradio's own checks are those of programs that one runs for oneself. It answers pages of any origin,
takes bodies and uploads without end, and has routes for more than this page.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etaflow.serve.bodies import LimitBodies
from etaflow.serve.service import Service

log = logging.getLogger(__name__)

# What the page asks for. Gradio has routes for more: proxies, editors, recordings of screens.
UPLOAD = "/gradio_api/upload"
STREAM = "/gradio_api/heartbeat/"
PATHS = frozenset(
    (
        *("/", "/config", "/theme.css", "/login", "/logout", "/manifest.json", "/favicon.ico"),
        *("/robots.txt", UPLOAD, "/gradio_api/upload_progress"),
        *("/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/startup-events"),
        *("/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/login_check"),
        *("/gradio_api/user", "/gradio_api/token", "/gradio_api/app_id"),
    )
)
PREFIXES = ("/assets/", "/static/", "/svelte/", "/gradio_api/file=", STREAM)
# The browser, too, is told to load nothing from elsewhere, whatever a card has in it.
HEADERS = {
    "content-security-policy": "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "form-action 'self'; base-uri 'self'; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MAX_CALL_BYTES = 64_000  # of what a button of the page sends: names of files, and choices
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class SameSite:
    """Refuses (403) what the page of another site asks for in the name of whoever looks at it."""

    def __init__(self, app: ASGIApp, local: bool) -> None:
        """Wrap an application.

        Args:
            app: to protect.
            local: whether only this machine is meant to reach it: then a request for another host
                comes from a page whose name was made to lead here.
        """
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless another site asks."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if self.local and urlsplit(f"//{host}").hostname not in LOOPBACK:
                detail = f"this server is for its own machine, and not for the host {host[:80]!r}"
            elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                detail = f"another site, {origin[:80]!r}, may not use this server"
            else:
                return await self.app(scope, receive, send)
            return await JSONResponse({"detail": detail}, 403)(scope, receive, send)
        return await self.app(scope, receive, send)


class OnlyThePage:
    """Gradio, but for what this page has no use for, within limits, and with headers of our own."""

    def __init__(
        self, page: ASGIApp, service: Service, cache: Path, routes: Mapping[str, set[str]]
    ) -> None:
        """Wrap Gradio's application.

        Args:
            page: Gradio's application.
            service: whose limits hold; its `streams` are kept here.
            cache: the folder of uploads and results.
            routes: paths of the API, which Gradio stands behind, and their methods.
        """
        self.page, self.service, self.cache, self.routes = page, service, cache, routes
        settings = service.settings
        self.limited = LimitBodies(page, MAX_CALL_BYTES, settings.body_seconds)
        # As much as all requests that are let in at a time may bring.
        self.room = settings.max_requests * settings.max_payload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the page may ask for."""
        if scope["type"] != "http":
            return await self.page(scope, receive, send)
        refusal = await self._refusal(scope["path"], scope["method"])
        if refusal is not None:
            return await refusal(scope, receive, send)

        # Gradio fails at calls that its own page does not make; an upload fails for want of disk.
        call = scope["method"] == "POST" and scope["path"] != UPLOAD

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if call and message["status"] >= 500:
                    message = {**message, "status": 400}
                headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        if scope["path"].startswith(STREAM):
            return await self._stream(scope, receive, with_headers)
        try:
            await (self.limited if call else self.page)(scope, receive, with_headers)
        except Exception as error:
            if not call:
                raise
            log.warning(
                "the page was called in a way that Gradio fails at: %s", type(error).__name__
            )

    async def _refusal(self, path: str, method: str) -> JSONResponse | None:
        """Why a request is not Gradio's to answer."""
        if path in self.routes:
            allowed = ", ".join(sorted(self.routes[path]))
            headers = {"Allow": allowed}
            return JSONResponse({"detail": f"{path} takes {allowed}"}, 405, headers)
        if path.rstrip("/") not in PATHS and path not in PATHS and not path.startswith(PREFIXES):
            return JSONResponse({"detail": "there is nothing here"}, 404)
        if path == UPLOAD and await asyncio.to_thread(_size, self.cache) > self.room:
            detail = "the page holds as many files as it may; older ones go after half an hour"
            return JSONResponse({"detail": detail}, 429, {"Retry-After": "600"})
        if path.startswith(STREAM) and len(self.service.streams) >= self.most_streams:
            return JSONResponse({"detail": "too many pages are open"}, 429)
        return None

    @property
    def most_streams(self) -> int:
        """Pages that may be open at a time: they do little, each holds a connection."""
        return 4 * self.service.settings.max_requests

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An open page listens for as long as the server runs, which ends these tasks with itself.
        task = asyncio.current_task()
        assert task is not None
        self.service.streams.add(task)
        try:
            await self.page(scope, receive, send)
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the page may have closed it just before
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.service.streams.discard(task)


def _size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total

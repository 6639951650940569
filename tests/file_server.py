"""A web server on this machine, for tests of downloads."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)


class Server(ThreadingHTTPServer):
    """Serves `files`, with byte ranges, as the sites of corpora and models do."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None
        self.status: list[int] = []  # of the next downloads; 0 drops the connection
        self.knows_ranges = True
        self.knows_versions = True
        self.redirect = ""  # of the next request
        self.content_type = "application/octet-stream"
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.log.append((self.command, self.path, wanted))
        if body and self.server.status:
            status = self.server.status.pop(0)
            if status:
                self.send_error(status)
            else:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7)
                )
            return
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            self.server.redirect = ""
            return
        whole = self.server.files.get(self.path)
        if whole is None:
            self.send_error(404)
            return
        if not self.server.knows_ranges:
            wanted = None
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        if start >= len(whole):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(whole)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("Content-Type", self.server.content_type)
        if self.server.knows_versions:
            self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(whole[start : self.server.cut_after])

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Serve from a thread until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def serving() -> AbstractContextManager[Server]:
    """A server of files in memory, running."""
    return running(Server())

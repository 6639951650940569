"""A server that speaks as much of the API as a client needs, and fails as it is told to."""

import email
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEALTH: dict[str, Any] = {
    "status": "ok",
    "version": "0.1.0",
    "run": "small",
    "tasks": dict.fromkeys(("convert", "analyze", "verify", "separate"), "untrained"),
    "methods": ["copy", "knn"],
    "method": "knn",
    "limits": {"max_seconds": 60.0, "max_references": 10, "max_payload_mb": 0.5},
}


@dataclass(frozen=True)
class Reply:
    """What is answered to one request; `lost` bytes of the body's end never come."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: int = 0


def words(status: int, value: Any, **headers: str) -> Reply:
    """An answer in JSON."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | named)


DROPPED = Reply(status=0)  # the connection is closed without an answer
SILENT = Reply(status=-1)  # nothing is answered until the server ends


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    path: str
    headers: Message
    body: bytes

    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """Name, file's name and content of each part of a form."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = []
        for part in email.message_from_bytes(head + self.body).get_payload():
            name = part.get_param("name", header="content-disposition")
            parts.append((name, part.get_filename(), part.get_payload(decode=True)))
        return parts


class FakeServer(ThreadingHTTPServer):
    """Answers GET by `health`, and each POST by the next of `replies`."""

    def __init__(self) -> None:
        self.health = words(200, HEALTH)
        self.replies: list[Reply] = []
        self.log: list[Request] = []
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.log if request.path != "/v1/health"]


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        self.server.log.append(Request(self.path, self.headers, b""))
        self.reply(self.server.health)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.log.append(Request(self.path, self.headers, body))
        self.reply(self.server.replies.pop(0))

    def reply(self, reply: Reply) -> None:
        if reply.status <= 0:
            if reply == SILENT:
                self.server.ended.wait()
            self.close()
            return
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) - reply.lost])
        if reply.lost:
            self.close()

    def close(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """A server in a thread, until the block ends."""
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()

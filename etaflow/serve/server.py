"""Serving a bundle: the server with its routes, its page and who may use them."""

import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from etaflow.serve.bundle import ServedBundle
from etaflow.serve.guard import SameSite
from etaflow.serve.keys import Keys
from etaflow.serve.page import mount_page
from etaflow.serve.routes import add_routes
from etaflow.serve.service import Service
from etaflow.serve.settings import Settings
from etaflow.serve.supervisor import ServeError, Server

HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # that LitServe takes


def serve(
    bundle: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings | None = None,
    gpus: int = 0,
    keys: Sequence[str] = (),
) -> None:
    """Serve a bundle until SIGTERM or Ctrl-C.

    Args:
        bundle: a folder, or a repository of the Hugging Face Hub.
        host: address to listen on: 127.0.0.1, 0.0.0.0 or ::.
        port: to listen on, 1024 to 65535.
        settings: limits and workers; None: the defaults.
        gpus: to compute on; 0 for the CPU.
        keys: that may use the server; none: everybody may, which is refused where other machines
            can reach it, unless `settings.public`.

    Raises:
        ServeError: the address is another; keys are needed and there are none; or no worker could
            start.
        BundleError: there is no such bundle.
    """
    settings = settings or Settings()
    if host not in HOSTS:
        raise ServeError(f"host {host}: allowed are {', '.join(HOSTS)}")
    local = host == "127.0.0.1"
    if not local and not keys and not settings.public:
        raise ServeError(
            f"other machines can reach {host}: set ETAFLOW_API_KEYS to one or several keys, with "
            "commas between; or listen on 127.0.0.1, or set `public: true` in the settings"
        )
    service = Service(ServedBundle.read(bundle), settings)
    server = Server(service, gpus)
    allowed = Keys(() if settings.public else keys)
    add_routes(server.app, service, allowed)
    if not settings.public:
        server.app.add_middleware(SameSite, local=local and not keys)
    mount_page(server.app, service, allowed.login if allowed.demanded else None)
    _log_to_stderr()
    ended: list[int] = []

    def end(number: int, frame: Any) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        server.run(host, port, num_api_servers=1, log_level="warning", generate_client_file=False)
    except BaseException:
        # Those that LitServe leaves when it fails at the start would be waited for.
        for process in getattr(server, "inference_workers", []):
            process.kill()
        raise
    if not ended:
        raise ServeError("the server ended by itself; its log says why")


def _log_to_stderr() -> None:
    """Sizes, hashes and times of requests; LitServe sets the root logger up for warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("etaflow.serve")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


def keys_of_environment() -> tuple[str, ...]:
    """The keys in ETAFLOW_API_KEYS, with commas between them."""
    return tuple(filter(None, map(str.strip, os.environ.get("ETAFLOW_API_KEYS", "").split(","))))

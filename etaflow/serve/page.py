"""The web page of a server: Gradio, with nothing from other servers and nothing left for others."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from starlette.routing import Route

from etaflow.serve.guard import OnlyThePage
from etaflow.serve.service import Service

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

Login = Callable[[str, str], bool]
LOCK = ".lock"  # in such a folder
PREFIX = "etaflow-page-"  # of the folders of files, among others' temporary ones

STYLE = """
.gradio-container { max-width: 70rem !important; margin: 0 auto !important;
  width: 100%; }
@media (max-width: 30rem) { [role=tab] { padding-inline: .6rem !important; } }
/* Gradio's grey for small text and icons has too little contrast on white. */
:root:root { --neutral-400: #5a5a63; }
.dark.dark { --neutral-400: #a1a1aa; }
#heading h1 { margin: 0 0 .3rem; font-size: 1.5rem; overflow-wrap: anywhere; }
#heading p { margin: .3rem 0; }
.warning { border: 2px solid #8a4b00; border-left-width: .6rem; padding: .5rem .8rem;
  background: #fff4e0; color: #3d2100; border-radius: .3rem; }
.status { font-size: 1.05rem; margin: .3rem 0; overflow-wrap: anywhere; }
.refused { border: 2px solid #9b1c1c; border-left-width: .6rem; padding: .5rem .8rem;
  background: #fdecec; color: #5c0d0d; border-radius: .3rem; }
.decision { font-size: 1.5rem; font-weight: 700; margin: .5rem 0; }
.status-line dl { display: grid; grid-template-columns: max-content minmax(0, 1fr);
  gap: .2rem 1rem; margin: .8rem 0; }
.status-line dt { font-weight: 600; }
.status-line dd { margin: 0; overflow-wrap: anywhere; }
.picture { margin: 0; max-width: 36rem; }
.picture img { width: 100%; height: auto; background: #fff; }
#metrics [role=region] { overflow-x: auto; }
#metrics table { border-collapse: collapse; }
#metrics th, #metrics td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border: 1px solid #8886; }
#metrics th small, #metrics td small { display: block; font-weight: 400; white-space: nowrap; }
#metrics h2 { font-size: 1.2rem; margin: 1.2rem 0 .4rem; }
#metrics h3 { font-size: 1rem; margin: .8rem 0 .3rem; }
#metrics ul { font-size: .9rem; padding-left: 1.2rem; overflow-wrap: anywhere; }
#card { overflow-wrap: break-word; }
#card table { display: block; overflow-x: auto; border: 0; }
#card th, #card td { overflow-wrap: normal; word-break: normal; min-width: 6rem; }
#card pre { overflow-x: auto; }
button:focus-visible, input:focus-visible, select:focus-visible, a:focus-visible,
[tabindex]:focus-visible, [role=tab]:focus-visible, [role=listbox]:focus-visible {
  outline: 3px solid #0b62c4 !important; outline-offset: 2px !important; }
"""

# Controls of several recordings have the same names: groups of theirs tell them apart. One button
# of Gradio's has the key of a translation for its name.
SCRIPT = """() => {
  const name = () => {
    for (const block of document.querySelectorAll(".block[id]:not([aria-label])")) {
      const label = block.querySelector("[data-testid=block-label]");
      if (!label) continue;
      block.setAttribute("role", "group");
      block.setAttribute("aria-label", label.innerText.trim());
    }
    for (const button of document.querySelectorAll("[aria-label='common.upload']")) {
      button.setAttribute("aria-label", "Add files");
      button.title = "Add files";
    }
  };
  name();
  const names = {attributes: true, attributeFilter: ["aria-label"]};
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true, ...names});
}"""


def build_page(service: Service) -> "gr.Blocks":
    """The page's four tabs: Convert, Verify, Separate, and Run, what is served.

    Gradio keeps files where `GRADIO_TEMP_DIR` says when it is first imported; see `mount_page`.
    """
    from etaflow.serve.tabs import build

    return build(service)


def mount_page(app: "FastAPI", service: Service, login: Login | None) -> None:
    """Put the page at `/` of a server, below the routes that it has already.

    Uploads and results lie in a new folder that only this process's user reads, for half an hour;
    it is removed when the server ends.

    Args:
        app: of the server; its other routes stand first.
        service: that does what is asked for.
        login: whether a password of a user is right; None: whoever reaches the server may use it.
    """
    _remove_left_behind()
    cache = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    held = FileLock(Path(cache.name) / LOCK)
    held.acquire()
    app.state.page_lock = held  # a lock that nobody refers to is let go
    # Gradio reads it when it is imported, and would make a folder that all users share.
    os.environ["GRADIO_TEMP_DIR"] = cache.name
    import gradio as gr

    fonts = ("system-ui", "sans-serif")
    theme = gr.themes.Default(
        primary_hue="blue", font=fonts, font_mono=("ui-monospace", "monospace")
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
    )
    gr.mount_gradio_app(
        app,
        build_page(service),
        path="/",
        footer_links=[],
        run_history=False,
        auth=login,
        auth_message="Any user name; the password is a key of this server.",
        allowed_paths=None,
        show_error=False,
        max_file_size=service.settings.max_payload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=STYLE,
        js=SCRIPT,
    )
    routes: list[Any] = app.router.routes
    mounted = routes[-1]
    methods = {route.path: route.methods or set() for route in routes if isinstance(route, Route)}
    mounted.app = OnlyThePage(mounted.app, service, Path(cache.name), methods)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[Any]:
        with cache:
            async with inner(app) as state:
                yield state

    app.router.lifespan_context = lifespan


def _remove_left_behind() -> None:
    """Remove the folders of servers of this user that were killed, with the recordings in them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):  # another's, or that of a server that runs
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)

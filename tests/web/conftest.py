"""A server with every task, and a browser that looks at its page."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.serve_tools import Running, full_bundle, serve

CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SECONDS = 60  # for what the page says to appear, on a busy machine
# Players make elements of their own, which are not in the document.
REMEMBER_PLAYERS = """
window.players = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  window.players.push(this);
  return play.call(this);
};
"""

Open = Callable[[str], Page]


@pytest.fixture(scope="module")
def bundle_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_bundle(tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def server(bundle_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(bundle_of_all, tmp_path_factory.mktemp("server"), {"max_seconds": 10.0}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: no browser to test with")
    expect.set_options(timeout=SECONDS * 1000)
    arguments = [
        "--no-sandbox",
        # A microphone that beeps, and no question whether it may be used.
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[[str, str], Page]]:
    """Opens an address at a size; afterwards nothing may have been asked of another machine."""
    contexts: list[BrowserContext] = []
    asked: list[str] = []
    errors: list[str] = []

    def opened(url: str, size: str = "desktop") -> Page:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(SECONDS * 1000)
        context.add_init_script(REMEMBER_PLAYERS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert errors == []


def screenshot(page: Page, name: str) -> None:
    """For people to look at, where ETAFLOW_SCREENSHOTS names a folder."""
    folder = os.environ.get("ETAFLOW_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

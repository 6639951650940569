"""The web page in a browser, on a server that runs as a process."""

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import soundfile
import soxr
from playwright.sync_api import Locator, Page, Response, expect

from tests.serve_tools import Running, serve
from tests.web.conftest import SIZES, screenshot

pytestmark = pytest.mark.slow
OpenPage = Callable[..., Page]

FOLDER = "LibriTTS/train-other-500"
ONE = "8887/281471/8887_281471_000008_000001.wav"
SAME = "8887/281472/8887_281472_000006_000000.wav"
OTHER = "9023/296467/9023_296467_000004_000004.wav"


@pytest.fixture
def recordings(speech_dir: Path) -> tuple[Path, Path, Path]:
    """Two of one speaker, and one of another."""
    one, same, other = (speech_dir / FOLDER / name for name in (ONE, SAME, OTHER))
    return one, same, other


def is_upload(response: Response) -> bool:
    return urlsplit(response.url).path == "/gradio_api/upload"


def send(page: Page, name: str, *files: Path) -> None:
    """Upload to the field, and wait until the server has the files."""
    with page.expect_response(is_upload):
        page.locator(f"#{name} input[type=file]").first.set_input_files(files)
    field = page.locator(f"#{name}")
    if name == "references":
        expect(field.locator("tr.file")).to_have_count(len(files))
    else:
        expect(field.get_by_label("Clear")).to_be_visible()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def fits(page: Page) -> None:
    """No part of the page lies beside the window."""
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window


def plays(page: Page, player: Locator, seconds: float) -> None:
    """The player's sound has this length, and goes on when it is asked to play."""
    player.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("window.players.at(-1)?.currentTime > 0.2")
    assert page.evaluate("window.players.at(-1).duration") == pytest.approx(seconds, abs=0.01)


def downloaded(page: Page, player: Locator) -> tuple[str, np.ndarray, int]:
    with page.expect_download() as download:
        player.get_by_role("link", name="Download").click()
    path = download.value.path()
    assert soundfile.info(path).subtype == "PCM_16"
    samples, rate = soundfile.read(path)
    return download.value.suggested_filename, samples, rate


@pytest.mark.parametrize("size", SIZES)
def test_a_voice_is_converted(
    server: Running, open_page: OpenPage, recordings: tuple[Path, Path, Path], size: str
) -> None:
    source, *references = recordings
    page = open_page(server.url, size)
    heading = page.locator("#heading")
    expect(heading).to_contain_text("the run small")
    expect(heading).to_contain_text("trained on the corpus mine, 1.00 h, 6 utterances of 3 spea")
    expect(heading).to_contain_text("Warning: untrained weights.")
    send(page, "source", source)
    send(page, "references", *references)
    fits(page)
    press(page, "Convert")
    expect(page.locator("#convert-status")).to_have_text("Converted by knn-eta-source.")
    info = soundfile.info(source)
    expected = -(-info.frames * 16_000 // info.samplerate)
    player = page.get_by_role("group", name="Result")
    plays(page, player, expected / 16_000)
    name, samples, rate = downloaded(page, player)
    assert (name, rate, len(samples)) == ("converted-knn-eta-source.wav", 16_000, expected)
    for field, label in (("source", "Source"), ("result", "Result")):
        image = page.locator(f"#{field}-picture img")
        assert image.get_attribute("alt") == (
            f"Waveform and spectrogram of {label}, {info.duration:.2f} seconds long"
        )
        assert image.evaluate("image => image.naturalWidth") == 800
    fits(page)
    screenshot(page, f"convert-{size}")

    files = [("references", path.read_bytes()) for path in references]
    done = requests.post(
        f"{server.url}/v1/convert", files=[("source", source.read_bytes()), *files], timeout=300
    )
    by_api, _ = soundfile.read(io.BytesIO(done.content))
    np.testing.assert_allclose(samples, by_api, atol=1e-3)
    assert np.std(samples) > 0.01


@pytest.mark.parametrize("size", SIZES)
def test_speakers_are_verified(
    server: Running, open_page: OpenPage, recordings: tuple[Path, Path, Path], size: str
) -> None:
    one, same, other = recordings
    page = open_page(server.url, size)
    page.get_by_role("tab", name="Verify").click()
    send(page, "one", one)
    for second, words, side in (
        (same, "Same speaker", "at or above"),
        (other, "Different speakers", "below"),
    ):
        send(page, "other", second)
        press(page, "Verify")
        status = page.locator("#verify-status")
        expect(status.locator(".decision")).to_contain_text(words)
        files = {"one": one.read_bytes(), "other": second.read_bytes()}
        said = requests.post(f"{server.url}/v1/verify", files=files, timeout=300).json()
        assert said["same_speaker"] is (second == same)
        shown = dict(
            zip(
                status.locator("dt").all_inner_texts(),
                status.locator("dd").all_inner_texts(),
                strict=True,
            )
        )
        assert float(shown["Score"]) == pytest.approx(said["score"], abs=2e-4)
        assert shown["Threshold"] == "0.6200"
        assert (shown["Unit"], shown["System"]) == ("cosine", "cosine")
        assert shown["Threshold set on"] == (
            "4 target and 4 non-target trials of the list pairs (corpora: mine); "
            "equal error rate on pairs 25.00 %"
        )
        expect(status).to_contain_text(f"is {side} the threshold 0.6200")
        fits(page)
        screenshot(page, f"verify-{words.split()[0].lower()}-{size}")
        page.locator("#other").get_by_label("Clear").click()


@pytest.mark.parametrize("size", SIZES)
def test_a_mixture_is_separated(
    server: Running,
    open_page: OpenPage,
    recordings: tuple[Path, Path, Path],
    tmp_path: Path,
    size: str,
) -> None:
    waves = [soundfile.read(path)[0] for path in (recordings[0], recordings[2])]
    length = min(map(len, waves))
    mixture = soxr.resample((waves[0][:length] + waves[1][:length]) / 2, 24_000, 16_000)
    path = tmp_path / "mixture.wav"
    soundfile.write(path, mixture, 16_000)
    page = open_page(server.url, size)
    page.get_by_role("tab", name="Separate").click()
    send(page, "mixture", path)
    press(page, "Separate")
    expect(page.locator("#separate-status")).to_have_text("Separated into 2 speakers.")
    done = requests.post(
        f"{server.url}/v1/separate", files={"mixture": path.read_bytes()}, timeout=300
    )
    archive = zipfile.ZipFile(io.BytesIO(done.content))
    by_api = [soundfile.read(io.BytesIO(archive.read(f"source{n}.wav")))[0] for n in (1, 2)]
    peak = max(1.0, *(np.abs(wave).max() for wave in by_api))
    for number, wave in enumerate(by_api, start=1):
        player = page.get_by_role("group", name=f"Speaker {number}")
        plays(page, player, len(mixture) / 16_000)
        name, samples, rate = downloaded(page, player)
        assert (name, rate, len(samples)) == (f"source{number}.wav", 16_000, len(mixture))
        np.testing.assert_allclose(samples, wave / peak, atol=1e-3)
    for label in ("Mixture", "Speaker 1", "Speaker 2"):
        expect(page.get_by_alt_text(f"Waveform and spectrogram of {label},")).to_be_visible()
    fits(page)
    screenshot(page, f"separate-{size}")


@pytest.mark.parametrize("size", SIZES)
def test_the_run_is_shown(server: Running, open_page: OpenPage, size: str) -> None:
    page = open_page(server.url, size)
    page.get_by_role("tab", name="Run").click()
    table = page.get_by_role("region", name="Voice conversion")
    assert table.get_by_role("row", name="knnvc").get_by_role("cell").all_inner_texts() == [
        "86.30\n80.00 to 90.00\nn = 60, untrained",
        "31.25\n28.00 to 35.50\nn = 60, untrained",
    ]
    separated = page.get_by_role("region", name="Source separation Mixtures: both")
    expect(separated.get_by_role("row", name="small")).to_contain_text("-8.25 to -6.75")
    card = page.locator("#card")
    expect(card.get_by_role("heading", name="etaflow bundle of the run small")).to_be_visible()
    expect(card).to_contain_text("The Eta fit is of 7 utterances of 3 speakers, 1234 frames.")
    fits(page)
    screenshot(page, f"run-{size}")


def focused(page: Page) -> dict[str, str]:
    return page.evaluate(
        """() => {
          const own = document.activeElement, style = getComputedStyle(own);
          return {
            name: own.getAttribute("aria-label") || own.innerText.trim() || own.type,
            group: own.closest("[role=group]")?.getAttribute("aria-label") || "",
            outline: style.outlineStyle === "none" ? "" : style.outlineWidth,
          };
        }"""
    )


def test_the_keyboard_is_enough(
    server: Running, open_page: OpenPage, recordings: tuple[Path, Path, Path]
) -> None:
    page = open_page(server.url)
    send(page, "source", recordings[0])
    send(page, "references", recordings[2])
    page.locator("body").focus()
    order = []
    while len(order) < 60:
        page.keyboard.press("Tab")
        order.append(focused(page))
        if order[-1]["name"] == "Convert" and len(order) > 4:
            break
    names = [each["name"] for each in order]
    assert names[:4] == ["Convert", "Verify", "Separate", "Run"]  # the tabs
    assert names[-3:] == ["Reset to default value", "range slider for k", "Convert"]
    assert {each["group"] for each in order} >= {
        "Source: whose words are kept",
        "References: whose voice is taken",
        "Another reference: record it",
    }
    assert all(each["name"] for each in order)
    assert all(each["outline"] for each in order)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("number input for k")).to_have_value("5")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("Converted by knn-eta-source.")


def test_every_method_is_found_by_keyboard(server: Running, open_page: OpenPage) -> None:
    page = open_page(server.url)
    expect(page.get_by_label("Method")).to_have_value("knn-eta-source")
    methods = requests.get(f"{server.url}/v1/health", timeout=60).json()["methods"]
    page.locator("body").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused(page)["name"] == "Method":
            break
    options = page.locator("#method [role=option]")
    expect(options).to_have_count(len(methods))
    assert [text.split("\n")[-1] for text in options.all_inner_texts()] == methods
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Method")).to_have_value("linear-eta-source")


def test_what_cannot_be_done_is_said(
    server: Running, open_page: OpenPage, recordings: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    page = open_page(server.url)
    status = page.locator("#convert-status")
    press(page, "Convert")
    expect(status).to_have_text("Not done: the source is missing; upload or record it first")
    send(page, "source", recordings[0])
    press(page, "Convert")
    expect(status).to_have_text("Not done: knn-eta-source needs a reference, and there is none")
    silence, text, long = (tmp_path / f"{name}.wav" for name in ("silence", "text", "long"))
    soundfile.write(silence, np.zeros(16_000), 16_000)
    text.write_text("no audio, whatever its name says")
    soundfile.write(long, np.tile(soundfile.read(recordings[0])[0], 6), 24_000)
    for file, reason in (
        (silence, "reference 1 is silent: its mono signal never exceeds -80 dBFS"),
        (text, "reference 1 is no audio file that is taken here: WAV, FLAC, Ogg and MP3 are"),
        (long, "reference 1 has 14.6 s or more; at most 10 s are taken"),
    ):
        send(page, "references", file)
        press(page, "Convert")
        expect(status).to_have_text(f"Not done: {reason}")
        page.locator("#references").get_by_label("Clear").click()
    expect(page.locator("#result").get_by_role("link", name="Download")).to_have_count(0)
    screenshot(page, "refused-desktop")


def test_a_recording_is_made(server: Running, open_page: OpenPage) -> None:
    page = open_page(server.url)
    source = page.locator("#source")
    source.get_by_label("Record audio").click()
    source.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2_500)  # of beeps
    with page.expect_response(is_upload):
        source.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_label("Method").click()
    page.get_by_role("option", name="copy", exact=True).click()
    press(page, "Convert")
    expect(page.locator("#convert-status")).to_have_text("Converted by copy.")
    name, samples, rate = downloaded(page, page.get_by_role("group", name="Result"))
    assert (name, rate) == ("converted-copy.wav", 16_000)
    assert 1.0 < len(samples) / rate < 6.0


def test_the_page_asks_for_a_key_and_leaves_nothing(
    bundle_of_all: Path,
    open_page: OpenPage,
    recordings: tuple[Path, Path, Path],
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = {"ETAFLOW_API_KEYS": "first,second", "TMPDIR": str(temporary)}
    with serve(bundle_of_all, tmp_path / "server", variables=variables) as server:
        for path in ("config", "gradio_api/upload", "gradio_api/queue/join"):
            ask = requests.get if path == "config" else requests.post
            assert ask(f"{server.url}/{path}", timeout=60).status_code == 401
        page = open_page(server.url)
        expect(page.get_by_text("the password is a key of this server")).to_be_visible()
        assert "the run" not in page.locator("body").inner_text()
        page.get_by_label("username").fill("anybody")
        page.get_by_label("password").fill("third")
        press(page, "Login")
        expect(page.get_by_text("Incorrect Credentials")).to_be_visible()
        screenshot(page, "login-desktop")
        page.get_by_label("username").fill("anybody")  # which Gradio has emptied
        page.get_by_label("password").fill("second")
        press(page, "Login")
        expect(page.locator("#heading")).to_contain_text("the run small")
        send(page, "source", recordings[0])
        send(page, "references", recordings[2])
        press(page, "Convert")
        expect(page.locator("#convert-status")).to_have_text("Converted by knn-eta-source.")
        (cache,) = temporary.glob("etaflow-page-*")
        assert cache.stat().st_mode & 0o777 == 0o700
        kept = sorted(path.name for path in cache.rglob("*.wav"))
        assert kept == sorted(["converted-knn-eta-source.wav", Path(ONE).name, Path(OTHER).name])
        audio = [path for path in temporary.rglob("*") if path.suffix in (".wav", ".png")]
        assert all(path.is_relative_to(cache) for path in audio)
    assert not list(temporary.glob("etaflow-page-*"))
    log = server.log.read_text()
    assert "8887" not in log
    assert "Traceback" not in log


def test_only_what_the_page_needs_is_answered(server: Running) -> None:
    for path in (
        *("gradio_api/info", "gradio_api/openapi.json", "monitoring", "gradio_api/runs"),
        *("gradio_api/proxy=https://example.org/", "gradio_api/process_recording", "nowhere"),
    ):
        done = requests.get(f"{server.url}/{path}", timeout=60)
        assert (done.status_code, done.json()) == (404, {"detail": "there is nothing here"})
    for path in ("/etc/passwd", "../../etc/passwd", "https://example.org/"):
        done = requests.get(f"{server.url}/gradio_api/file={path}", timeout=60)
        assert done.status_code in (403, 404)
    done = requests.get(server.url, timeout=60)
    assert done.status_code == 200
    assert "default-src 'self'" in done.headers["content-security-policy"]
    assert done.headers["x-content-type-options"] == "nosniff"
    encoded = base64.b64encode(bytes(2_000)).decode()
    large = {"files": ("a.wav", encoded * 7_000)}
    done = requests.post(f"{server.url}/gradio_api/upload", files=large, timeout=60)
    assert done.status_code == 413

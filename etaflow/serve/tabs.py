"""The page's tabs, and what their buttons do.

Gradio keeps uploads and results as files. Where is read from the environment when this module is
imported: `etaflow.serve.page` sees to it that it is a folder of nobody else's.
"""

import asyncio
import html
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from etaflow.audio import Waveform, write_audio
from etaflow.serve import words
from etaflow.serve.incoming import FORMATS, check, read
from etaflow.serve.messages import MAX_TOPK, Refused
from etaflow.serve.pictures import picture_html
from etaflow.serve.service import Service

KEPT_SECONDS = 1800  # that uploads and results can be heard and downloaded
SUFFIXES = [".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3"]
# Read out by screen readers when it changes.
LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"


def build(service: Service) -> gr.Blocks:
    """The page of a service."""
    bundle = service.bundle
    with gr.Blocks(
        title=f"etaflow: {bundle.run}",
        analytics_enabled=False,
        delete_cache=(60, KEPT_SECONDS),
    ) as page:
        gr.HTML(words.heading(bundle), elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Convert", id="convert"):
                _convert_tab(service)
            for task, build_tab in (("verify", _verify_tab), ("separate", _separate_tab)):
                with gr.Tab(task.capitalize(), id=task):
                    if task in bundle.weights:
                        build_tab(service)
                    else:
                        gr.HTML(words.missing(task))
            with gr.Tab("Run", id="run"):
                gr.HTML(words.metrics(bundle), elem_id="metrics")
                gr.Markdown(words.card(bundle), elem_id="card")
    # Gradio looks whether a file is one that was uploaded only where it counts the page as started,
    # which mounting it does not do.
    page.has_launched = True
    # A request has its place, or is refused it, where those of the API are: in the service.
    page.queue(max_size=service.settings.max_requests, default_concurrency_limit=None)
    return page


def _convert_tab(service: Service) -> None:
    bundle, settings = service.bundle, service.settings
    gr.HTML(
        "<p>Say a source in the voice of references. Recordings are "
        f"{FORMATS} of up to {settings.max_seconds:g} s, and up to {settings.max_references} "
        "references of one speaker; a minute of them is better than a few seconds.</p>"
    )
    with gr.Row():
        with gr.Column():
            source = _recording("Source: whose words are kept", "source")
        with gr.Column():
            references = _sent(
                gr.File(
                    label="References: whose voice is taken",
                    file_count="multiple",
                    file_types=SUFFIXES,
                    elem_id="references",
                    height=180,
                )
            )
            recorded = _recording("Another reference: record it", "recorded", "microphone")
    with gr.Row():
        method = gr.Dropdown(
            list(bundle.methods),
            value=bundle.method,
            label="Method",
            info="knn: nearest neighbours; linear, mkl: maps of the features; -eta: through "
            "Eta-WavLM; copy: the vocoder alone",
            elem_id="method",
            min_width=300,
        )
        topk = gr.Slider(
            *(1, MAX_TOPK, 4),
            step=1,
            label="k",
            info="Neighbours a frame, of methods with knn",
            elem_id="topk",
            min_width=300,
        )
    button = gr.Button("Convert", variant="primary", elem_id="convert-button")
    status = _status("convert-status")
    result = _player("Result", "result")
    with gr.Row():
        seen = []
        for name in ("source-picture", "result-picture"):
            with gr.Column(min_width=300):
                seen.append(gr.HTML(elem_id=name))

    async def convert(
        path: str | None, files: list[str] | None, record: str | None, name: str, k: float
    ) -> AsyncIterator[Sequence[Any]]:
        yield words.busy("Converting"), None, "", ""
        try:
            with service.place("convert"):
                given = [*(files or []), *filter(None, [record])]
                heard = await _read(path, "the source")
                voices = [await _read(each, "a reference") for each in given]
                audio = await service.convert(heard, voices, name, int(k))
                pictures = await asyncio.gather(
                    asyncio.to_thread(_picture_of_file, service, "Source", heard),
                    asyncio.to_thread(picture_html, "Result", audio.waveforms[0], audio.rate),
                )
                file = await asyncio.to_thread(
                    _write, f"converted-{name}.wav", audio.waveforms[0], audio.rate
                )
        except Refused as error:
            yield words.refusal(error), None, "", ""
            return
        yield words.done(f"Converted by {name}."), file, *pictures

    _on(button, convert, [source, references, recorded, method, topk], [status, result, *seen])


def _verify_tab(service: Service) -> None:
    on = words.threshold_of(words.verifier(service.bundle))
    gr.HTML(
        f"<p>Are two recordings of one speaker? The threshold was set on {html.escape(on)}.</p>"
    )
    with gr.Row():
        one = _recording("One recording", "one")
        other = _recording("The other recording", "other")
    button = gr.Button("Verify", variant="primary", elem_id="verify-button")
    status = _status("verify-status")

    async def verify(first: str | None, second: str | None) -> AsyncIterator[str]:
        yield words.busy("Comparing")
        try:
            with service.place("verify"):
                files = [await _read(first, "one"), await _read(second, "other")]
                said = await service.verify(*files)
        except Refused as error:
            yield words.refusal(error)
            return
        yield words.decision(said)

    _on(button, verify, [one, other], [status])


def _separate_tab(service: Service) -> None:
    gr.HTML("<p>Take a mixture of speakers apart.</p>")
    mixture = _recording("Mixture", "mixture")
    button = gr.Button("Separate", variant="primary", elem_id="separate-button")
    status = _status("separate-status")
    seen = gr.HTML(elem_id="mixture-picture")
    # How many speakers a separator tells apart is known when it has done so.
    parts = gr.State(())

    async def separate(path: str | None) -> AsyncIterator[Sequence[Any]]:
        yield words.busy("Separating"), "", ()
        try:
            with service.place("separate"):
                heard = await _read(path, "the mixture")
                audio = await service.separate(heard)
                drawn = await asyncio.to_thread(_picture_of_file, service, "Mixture", heard)
                # One factor for all: how loud speakers are beside each other is part of the result.
                peak = max(float(np.abs(wave).max()) for wave in audio.waveforms)
                found = []
                for number, wave in enumerate(audio.waveforms, start=1):
                    scaled = wave / np.float32(max(1.0, peak))
                    name = f"Speaker {number}"
                    found.append(
                        (
                            await asyncio.to_thread(
                                _write, f"source{number}.wav", scaled, audio.rate
                            ),
                            await asyncio.to_thread(picture_html, name, scaled, audio.rate),
                        )
                    )
        except Refused as error:
            yield words.refusal(error), "", ()
            return
        yield words.done(f"Separated into {len(found)} speakers."), drawn, tuple(found)

    _on(button, separate, [mixture], [status, seen, parts])

    @gr.render(inputs=[parts], triggers=[parts.change])
    def players(found: Sequence[tuple[str, str]]) -> None:
        for number, (file, drawn) in enumerate(found, start=1):
            with gr.Row(), gr.Column():
                _player(f"Speaker {number}", f"speaker{number}", file)
                gr.HTML(drawn)


def _recording(label: str, name: str, *sources: str) -> gr.Audio:
    return _sent(
        gr.Audio(
            label=label,
            sources=list(sources or ("upload", "microphone")),
            type="filepath",
            elem_id=name,
            editable=False,
            buttons=[],
        )
    )


def _sent(component: Any) -> Any:
    """A component whose files the browser sends; the server fetches none from an address.

    It is no subclass, because Gradio would write a stub beside this module for one.
    """
    take = component.async_move_resource_to_block_cache

    async def refuse_addresses(path: Any) -> Any:
        if path is not None and "://" in str(path):
            raise gr.Error("a recording is sent with the request, not fetched from an address")
        return await take(path)

    component.async_move_resource_to_block_cache = refuse_addresses
    return component


def _player(label: str, name: str, file: str | None = None) -> gr.Audio:
    return gr.Audio(
        file,
        label=label,
        elem_id=name,
        type="filepath",
        interactive=False,
        buttons=["download"],
    )


def _status(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, js_on_load=LIVE, elem_classes="status-line")


def _on(button: gr.Button, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
    button.click(
        handler,
        inputs,
        outputs,
        api_visibility="private",
        concurrency_limit=None,
        show_progress="hidden",
    )


async def _read(path: str | None, name: str) -> bytes:
    """The bytes of an upload."""
    if path is None:
        raise Refused(422, f"{name} is missing; upload or record it first")
    file = Path(path).resolve()
    if not file.is_relative_to(Path(get_upload_folder()).resolve()):
        raise Refused(422, f"{name} is no file that was uploaded")
    try:
        return await asyncio.to_thread(file.read_bytes)
    except FileNotFoundError as error:
        raise Refused(422, f"{name} was removed after a while; upload it again") from error


def _write(name: str, waveform: Waveform, rate: int) -> str:
    """A 16-bit file in a new folder of Gradio's cache, so that its name is what is downloaded."""
    folder = tempfile.mkdtemp(dir=get_upload_folder())
    path = Path(folder) / name
    write_audio(path, waveform, rate)
    return str(path)


def _picture_of_file(service: Service, name: str, file: bytes) -> str:
    recording = check(name, file, service.settings.max_seconds)
    return picture_html(name, read(recording), recording.rate)

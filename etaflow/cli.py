"""The command line: `etaflow convert …`, `etaflow analyze …`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Bundle = Annotated[
    str, typer.Option(help="of a run: results/RUN/bundle, or OWNER/NAME on the Hugging Face Hub")
]
Gpus = Annotated[int, typer.Option(help="1 to compute on the GPU")]


@app.callback()
def etaflow() -> None:
    """Speaker identity in self-supervised speech features."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="recording whose words are kept")],
    references: Annotated[list[Path], typer.Argument(help="recordings of the target speaker")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV or FLAC file to write")],
    bundle: Bundle,
    method: Annotated[str, typer.Option(help="knn, knn-eta-source, knn-eta or copy")] = "knn",
    topk: Annotated[int, typer.Option(help="neighbours a frame")] = 4,
    gpus: Gpus = 0,
) -> None:
    """Say SOURCE in the voice of the REFERENCES."""
    from etaflow.audio import check_audio, check_suffix, read_audio, write_audio
    from etaflow.converter import VoiceConverter
    from etaflow.device import select_device

    try:
        check_suffix(output)
        for path in (source, *references):
            check_audio(path)
        converter = VoiceConverter.from_pretrained(bundle, select_device(gpus))
        waveform = converter.convert(
            read_audio(source), [read_audio(path) for path in references], topk, method
        )
        write_audio(output, waveform)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if converter.weights == "untrained":
        typer.echo("note: this bundle stands on untrained weights; expect noise", err=True)


@app.command()
def analyze(
    recording: Annotated[Path, typer.Argument(help="recording to split")],
    bundle: Bundle,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write; a new one")],
    gpus: Gpus = 0,
) -> None:
    """Split the features of a RECORDING into speaker and rest: arrays, measures and a figure."""
    from etaflow.analysis import analyze, check_output
    from etaflow.audio import check_audio, read_audio
    from etaflow.converter import VoiceConverter
    from etaflow.device import select_device

    try:
        check_output(output)
        check_audio(recording)
        converter = VoiceConverter.from_pretrained(bundle, select_device(gpus))
        analyze(read_audio(recording), converter).save(output)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if converter.weights == "untrained":
        typer.echo(
            "note: this bundle stands on untrained weights; its measures say little", err=True
        )

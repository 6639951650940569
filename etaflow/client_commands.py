"""`etaflow client …`: the tasks of a server, by files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from etaflow.serve.client import Client

client_app = typer.Typer(
    no_args_is_help=True,
    help="Ask a server, see `etaflow serve`. A key is taken from ETAFLOW_API_KEY.",
)

Url = Annotated[str, typer.Option(help="of the server")]
LOCAL = "http://127.0.0.1:8000"


@contextmanager
def _client(url: str) -> Iterator["Client"]:
    """A client under a progress bar; its errors end the command."""
    from etaflow.progress import bar
    from etaflow.serve.client import Client, ClientError

    shown = bar(None, "", "B", disable=True)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if shown.disable:
            shown = bar(total, stage, "B")
            shown.unit_scale = True
        shown.total = total
        shown.update(done - shown.n)
        if stage != shown.desc:
            shown.set_description_str(stage)

    try:
        yield Client(url, progress=progress)
    except ClientError as error:
        shown.close()
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        shown.close()


def _note(weights: str | None, words: str) -> None:
    if weights == "untrained":
        typer.echo(f"note: the server stands on untrained weights; {words}", err=True)


@client_app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="recording whose words are kept")],
    references: Annotated[list[Path], typer.Argument(help="recordings of the target speaker")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV or FLAC file to write")],
    url: Url = LOCAL,
    method: Annotated[
        str | None, typer.Option(help="one that `etaflow client health` names")
    ] = None,
    topk: Annotated[int, typer.Option(help="neighbours a frame", min=1)] = 4,
) -> None:
    """Say SOURCE in the voice of the REFERENCES, on a server."""
    with _client(url) as client:
        converted = client.convert(source, references, output, method, topk)
    _note(converted.weights, "expect noise")


@client_app.command()
def verify(
    one: Annotated[Path, typer.Argument(help="recording")],
    other: Annotated[Path, typer.Argument(help="recording to compare it with")],
    url: Url = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say whether ONE and OTHER are recordings of the same speaker, on a server.

    The exit status is 0 whatever the decision, and 1 if there is none.
    """
    with _client(url) as client:
        decision = client.verify(one, other)
    if as_json:
        typer.echo(json.dumps(decision))
    else:
        typer.echo(f"score:     {decision['score']:.4f} ({decision['unit']})")
        typer.echo(f"threshold: {decision['threshold']:.4f}")
        same = decision["same_speaker"]
        typer.echo(f"decision:  {'same speaker' if same else 'different speakers'}")
    _note(client.tasks.get("verify"), "its decision says little")


@client_app.command()
def separate(
    mixture: Annotated[Path, typer.Argument(help="recording of several speakers at once")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write; a new one")],
    url: Url = LOCAL,
) -> None:
    """Write each speaker of MIXTURE to a file, source1.wav, source2.wav …, on a server."""
    with _client(url) as client:
        written = client.separate(mixture, output)
    for path in written:
        typer.echo(str(path))
    _note(client.tasks.get("separate"), "expect noise")


@client_app.command()
def analyze(
    recording: Annotated[Path, typer.Argument(help="recording to split")],
    url: Url = LOCAL,
) -> None:
    """Print what Eta-WavLM finds of the speaker in a RECORDING, as JSON, on a server."""
    with _client(url) as client:
        measures = client.analyze(recording)
    typer.echo(json.dumps(measures, indent=2))
    _note(client.tasks.get("analyze"), "its measures say little")


@client_app.command()
def health(url: Url = LOCAL) -> None:
    """Print what a server says of itself, as JSON: its run, tasks, methods and limits."""
    with _client(url) as client:
        said = client.health()
    typer.echo(json.dumps(said, indent=2))

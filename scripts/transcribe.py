"""Transcribe the waveforms of a system by speech recognition."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.asr import FasterWhisper, PocketSphinx, Recognizer, transcribe_files
from etaflow.corpora import mini
from etaflow.device import select_device
from etaflow.evaluation.tables import read_converted
from etaflow.manifest import write_table
from etaflow.models import read_model_info
from etaflow.script import new_app

app = new_app()
GRAMMARS = {None: lambda: None, "mini": mini.grammar_jsgf}


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help='JSON: {"engine": "pocketsphinx", "grammar": "mini" or null} '
            'or {"engine": "faster-whisper"}'
        ),
    ],
    converted: Annotated[Path, typer.Option(help="TSV of the system's waveforms")],
    output: Annotated[Path, typer.Option(help="TSV to write: utterance_id hypothesis")],
    model_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the model.json of faster-whisper"),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU cores given to this job")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Transcribe the waveforms of a system by speech recognition."""
    asr = json.loads(config)
    recognizer: Recognizer
    if asr["engine"] == "pocketsphinx":
        recognizer = PocketSphinx(GRAMMARS[asr["grammar"]](), workers=threads)
    elif asr["engine"] == "faster-whisper" and model_dir is not None:
        recognizer = FasterWhisper(read_model_info(model_dir)[1], select_device(gpus).type, threads)
    else:
        raise typer.BadParameter(f"{config}: unknown engine, or faster-whisper without --model-dir")
    table = read_converted(converted)
    table["hypothesis"] = transcribe_files(recognizer, table["path"].tolist())
    write_table(table[["utterance_id", "hypothesis"]], output)


if __name__ == "__main__":
    app()

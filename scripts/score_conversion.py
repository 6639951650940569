"""Score the waveforms of one system: words, speaker, quality."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etaflow.device import select_device
from etaflow.evaluation.summary import metrics_table
from etaflow.evaluation.tables import read_converted
from etaflow.evaluation.trials import conversion_trials
from etaflow.evaluation.utterances import RealSpeech, score_utterances
from etaflow.manifest import read_manifest, read_table, write_table
from etaflow.models import read_model_info, worst_weights
from etaflow.script import new_app
from etaflow.speaker import load_speaker_encoder
from etaflow.store import Embeddings

app = new_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: method, seed, bootstrap_rounds")],
    system: Annotated[str, typer.Option(help="Name of the system")],
    converted: Annotated[Path, typer.Option(help="TSV of the system's waveforms")],
    transcripts: Annotated[Path, typer.Option(help="TSV of what was heard in them")],
    manifest: Annotated[Path, typer.Option(help="Manifest of the real recordings")],
    embeddings: Annotated[Path, typer.Option(help="The judge's embeddings of the recordings")],
    judge_dir: Annotated[Path, typer.Option(help="Model folder of the judge, a speaker encoder")],
    models: Annotated[
        list[Path], typer.Option("--model", help="model.json of a model in the system's path")
    ],
    metrics: Annotated[Path, typer.Option(help="TSV to write: a row a figure")],
    utterances: Annotated[Path, typer.Option(help="TSV to write: a row an utterance")],
    trials: Annotated[Path, typer.Option(help="TSV to write: target_speaker kind score")],
    threads: Annotated[int, typer.Option(help="CPU cores given to this job")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Score the waveforms of one system: words, speaker, quality."""
    settings = json.loads(config)
    made, recordings = read_converted(converted), read_manifest(manifest)
    speakers = set(made["source_speaker"]) | set(made["target_speaker"])
    real = RealSpeech.select(recordings, Embeddings.read(embeddings), speakers)
    # Not of the conversions: a corrected transcript is no reason to convert or listen again.
    texts = dict(zip(recordings["utterance_id"], recordings["text"], strict=True))
    heard = read_table(transcripts).merge(made[["utterance_id", "source_id"]])
    heard["reference"] = heard["source_id"].map(texts)
    sources = dict(zip(recordings["utterance_id"], recordings["path"], strict=True))
    encoder = load_speaker_encoder(judge_dir, select_device(gpus))
    scores, vectors = score_utterances(
        system,
        made,
        heard,
        sources,
        real,
        encoder,
        copies=settings["method"] == "copy",
        threads=threads,
    )
    pairs = conversion_trials(made, vectors, real)
    weights = worst_weights([read_model_info(model.parent)[0].weights for model in models])
    figures = metrics_table(
        system, scores, pairs, weights, settings["bootstrap_rounds"], settings["seed"]
    )
    write_table(scores.round(6), utterances)
    write_table(pairs.table[["target_speaker", "kind", "score"]], trials)
    write_table(figures, metrics)


if __name__ == "__main__":
    app()

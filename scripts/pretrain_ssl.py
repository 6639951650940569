"""Pretrain a small WavLM by masked prediction of clusters."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

import etaflow
from etaflow.alignment import align_files
from etaflow.atomic import atomic_directory
from etaflow.audio import SAMPLE_RATE
from etaflow.corpora import rejection_summary
from etaflow.manifest import hold_out, joint_table
from etaflow.probe import segment_frames
from etaflow.provenance import fingerprint, source_files
from etaflow.script import new_app
from etaflow.ssl.pretraining.codes import Codes
from etaflow.ssl.pretraining.crops import HOP, Crops
from etaflow.ssl.pretraining.network import (
    PretrainingNetwork,
    new_wavlm,
    pretrained_wavlm,
    save_encoder,
)
from etaflow.ssl.pretraining.task import PretrainingTask, Validation
from etaflow.training import kept_step, train, write_history
from etaflow.training.command import Job, say, schedule_of, with_job
from etaflow.waveforms import Waveforms

app = new_app()


def phones_of(table: pd.DataFrame, codes: dict[str, Any], workers: int) -> dict[str, np.ndarray]:
    """A phone a frame of each utterance whose English text fits its recording."""
    spoken = table[table["text"] != ""]
    columns = (spoken[name].tolist() for name in ("utterance_id", "path", "text"))
    rows, refused = align_files(*columns, workers=workers)
    if len(refused):
        say(
            f"{len(refused)} of {len(spoken)} validation utterances without phones: "
            f"{rejection_summary(refused['reason'])}"
        )
    found = {}
    for name, segments in rows.groupby("utterance_id", sort=True):
        labels = np.full(len(codes[name]), "", dtype="<U3")
        times = (segments[edge].to_numpy(float) for edge in ("start", "stop"))
        firsts, lasts = segment_frames(*times, len(labels), SAMPLE_RATE, HOP)
        for first, last, phone in zip(firsts, lasts, segments["phone"], strict=True):
            labels[first:last] = phone
        found[name] = labels
    return found


@app.command()
@with_job
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {network, crop_seconds, masked, seen_weight, pitch_weight, "
            "spectrum_weight, overlaid, batch_size, steps, learning_rate, weight_decay, schedule, "
            "precision, ema, clip_norm, validate_every, validation, seed}"
        ),
    ],
    manifests: Annotated[
        list[Path],
        typer.Option("--manifest", help="of a corpus, CORPUS.….tsv; repeat for further corpora"),
    ],
    codes: Annotated[Path, typer.Option(help="what cluster_frames made of them")],
    output_dir: Annotated[
        Path,
        typer.Option(
            help="gets config.json, model.safetensors, preprocessor_config.json, model.json, "
            "metrics.tsv; its name is the model's"
        ),
    ],
    job: Job,
    model: Annotated[
        Path | None, typer.Option(help="model.json of the WavLM to go on with, if any")
    ] = None,
) -> None:
    """Pretrain a WavLM; the weights of the lowest validation loss are kept."""
    settings = json.loads(config)
    table = joint_table(manifests).query("split == 'train'")
    targets = Codes.read(codes)
    known = dict(targets.items())
    missing = sorted({*table["utterance_id"]} - known.keys())
    if missing:
        raise typer.BadParameter(f"--codes: of another corpus, {missing[0]} is not in {codes}")
    held, seed = settings["validation"], settings["seed"]
    speakers, held_out = hold_out(
        sorted(table["speaker_id"].unique()), held["speakers"], seed, "speakers"
    )
    own = table[table["speaker_id"].isin(speakers)]
    others = table[table["speaker_id"].isin(held_out)]
    others = others.groupby("speaker_id").head(held["utterances"])
    files = dict(
        zip(table["utterance_id"], zip(table["path"], table["checksum"], strict=True), strict=True)
    )
    waveforms = Waveforms(files)
    num_frames = round(settings["crop_seconds"] * SAMPLE_RATE / HOP)
    # As often in an epoch as it has room for crops.
    often = [
        name
        for name in sorted(own["utterance_id"])
        for _ in range(max(1, round(len(known[name]) / num_frames)))
    ]
    crops = Crops(known, waveforms, often, num_frames, settings["overlaid"])
    clean = {"speech": 0.0, "noise": 0.0}
    validation = Validation(
        Crops(known, waveforms, sorted(others["utterance_id"]), num_frames, clean),
        phones_of(others, known, max(1, job.threads)),
        dict(zip(others["utterance_id"], others["speaker_id"], strict=True)),
        seed,
    )
    torch.manual_seed(seed)
    wavlm = pretrained_wavlm(model.parent) if model else new_wavlm(settings["network"])
    network = PretrainingNetwork(wavlm, targets.clusters)
    task = PretrainingTask(
        network,
        crops,
        validation,
        batch_size=settings["batch_size"],
        masked=settings["masked"],
        seen_weight=settings["seen_weight"],
        pitch_weight=settings["pitch_weight"],
        spectrum_weight=settings["spectrum_weight"],
        learning_rate=settings["learning_rate"],
        schedule=schedule_of(settings["schedule"], settings["steps"]),
        weight_decay=settings["weight_decay"],
    )
    hours = (own["num_samples"] / own["sample_rate"]).sum() / 3600
    say(
        f"{sum(p.numel() for p in wavlm.parameters()):,} parameters; {hours:.1f} hours of "
        f"{len(speakers)} speakers to train on, {len(others)} utterances of {len(held_out)} others "
        f"to validate on, {len(validation.phones)} of them with phones"
    )
    package = Path(etaflow.__path__[0])
    code = source_files(__file__, package)
    history = train(
        task,
        job.settings(settings, select="loss"),
        fingerprint=fingerprint(config, *manifests, codes, *([model] if model else []), *code),
        **job.resources(),
    )
    if history is None:
        return
    say(f"kept the weights of step {kept_step(history, 'loss')} of {settings['steps']}")
    with atomic_directory(output_dir) as part:
        save_encoder(wavlm, part, output_dir.name)
        write_history(history, part / "metrics.tsv")
    shutil.rmtree(job.working_dir)


if __name__ == "__main__":
    app()

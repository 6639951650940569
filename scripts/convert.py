"""Convert the test pairs of a corpus by one system."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from etaflow.audio import file_checksum, read_audio, write_audio
from etaflow.converter import VoiceConverter, sample_pairs
from etaflow.device import select_device
from etaflow.eta import EtaModel
from etaflow.manifest import read_manifest, write_table
from etaflow.progress import progress
from etaflow.ssl import SSLEncoder
from etaflow.store import Embeddings, FeatureStore
from etaflow.vocoder import Generator

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: method, topk, sources_per_speaker, seed")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    output: Annotated[Path, typer.Option(help="converted.tsv to write")],
    wav_dir: Annotated[Path, typer.Option(help="folder to write the audio to")],
    features: Annotated[list[Path] | None, typer.Argument(help="HDF5 shards of features")] = None,
    model: Annotated[Path | None, typer.Option(help="model.json of the SSL encoder")] = None,
    vocoder: Annotated[Path | None, typer.Option(help="folder of the vocoder")] = None,
    eta: Annotated[Path | None, typer.Option(help="folder of the Eta model")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="HDF5 of speaker embeddings")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Write a WAV a pair, and the table of pairs.

    `original` needs the manifest only; the other methods features, model and vocoder; the Eta
    methods all.
    """
    settings = json.loads(config)
    method = settings["method"]
    table = read_manifest(manifest).set_index("utterance_id")
    pairs = sample_pairs(table.reset_index(), settings["sources_per_speaker"], settings["seed"])
    if method in ("original", "copy"):
        # These have no target: each source once, against itself.
        pairs = pairs.drop_duplicates("source_id").assign(
            target_speaker=lambda rows: rows["source_speaker"]
        )
    test = table[table["split"] == "test"]
    references = {speaker: sorted(rows.index) for speaker, rows in test.groupby("speaker_id")}
    store, converter, speakers = None, None, None
    if features and model and vocoder:
        device = select_device(gpus)
        store = FeatureStore(features)
        converter = VoiceConverter(
            SSLEncoder.from_pretrained(
                model.parent, store.meta.layer, store.meta.normalize, device=device
            ),
            Generator.from_pretrained(vocoder).to(device),
            EtaModel.from_pretrained(eta) if eta else None,
        )
        speakers = Embeddings.read(embeddings) if embeddings else None
    records = []
    for target, group in progress(
        list(pairs.groupby("target_speaker")), f"converting by {method}", "target speakers"
    ):
        ids = references[target]
        pool = [store[name] for name in ids] if store else []
        for pair in group.itertuples():
            waveform = read_audio(table.loc[pair.source_id, "path"])
            if store and converter:
                converted = converter.transform(
                    method,
                    store[pair.source_id],
                    pool,
                    speakers.rows([pair.source_id])[0] if speakers else None,
                    speakers.rows(ids) if speakers else None,
                    settings["topk"],
                )
                waveform = converter.vocode(converted, len(waveform))
            elif method != "original":
                raise typer.BadParameter(f"{method} needs features, --model and --vocoder")
            name = f"{pair.source_id}-to-{target}"
            path = wav_dir / f"{name}.wav"
            write_audio(path, waveform)
            records.append(
                {
                    "utterance_id": name,
                    "source_id": pair.source_id,
                    "source_speaker": pair.source_speaker,
                    "target_speaker": target,
                    "path": path.relative_to(output.parent).as_posix(),
                    "num_samples": len(waveform),
                    "checksum": file_checksum(path),
                    "text": table.loc[pair.source_id, "text"],
                }
            )
    write_table(pd.DataFrame(records).sort_values("utterance_id"), output)


if __name__ == "__main__":
    app()

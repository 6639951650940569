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
    features: Annotated[list[Path], typer.Argument(help="HDF5 shards of features")],
    config: Annotated[str, typer.Option(help="JSON: method, topk, sources_per_speaker, seed")],
    manifest: Annotated[Path, typer.Option(help="manifest of the corpus")],
    model: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    vocoder: Annotated[Path, typer.Option(help="folder of the vocoder")],
    embeddings: Annotated[Path, typer.Option(help="HDF5 of speaker embeddings")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    output: Annotated[Path, typer.Option(help="converted.tsv to write")],
    wav_dir: Annotated[Path, typer.Option(help="folder to write the audio to")],
    gpus: Annotated[int, typer.Option(help="GPUs given to this job")] = 0,
) -> None:
    """Write a WAV a pair, and the table of pairs."""
    settings = json.loads(config)
    method = settings["method"]
    table = read_manifest(manifest).set_index("utterance_id")
    pairs = sample_pairs(table.reset_index(), settings["sources_per_speaker"], settings["seed"])
    if method in ("original", "copy"):
        # These have no target: each source once, against itself.
        pairs = pairs.drop_duplicates("source_id").assign(
            target_speaker=lambda rows: rows["source_speaker"]
        )
    device = select_device(gpus)
    store = FeatureStore(features)
    converter = VoiceConverter(
        SSLEncoder.from_pretrained(
            model.parent, store.meta.layer, store.meta.normalize, device=device
        ),
        Generator.from_pretrained(vocoder).to(device),
        EtaModel.from_pretrained(eta),
    )
    speakers = Embeddings.read(embeddings)
    test = table[table["split"] == "test"]
    references = {speaker: sorted(rows.index) for speaker, rows in test.groupby("speaker_id")}
    sources = sorted(pairs["source_id"].unique())
    waveforms = {name: read_audio(table.loc[name, "path"]) for name in sources}
    encoded = dict(zip(sources, converter.encode(list(waveforms.values())), strict=True))
    records = []
    for target, group in progress(
        list(pairs.groupby("target_speaker")), f"converting by {method}", "target speakers"
    ):
        ids = references[target]
        pool = [store[name] for name in ids]
        for pair in group.itertuples():
            source = waveforms[pair.source_id]
            if method == "original":
                waveform = source
            else:
                converted = converter.transform(
                    method,
                    encoded[pair.source_id],
                    pool,
                    speakers.rows([pair.source_id])[0],
                    speakers.rows(ids),
                    settings["topk"],
                )
                waveform = converter.vocode(converted, len(source))
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

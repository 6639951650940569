"""Convert the pairs of a corpus by one system."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

from etaflow.audio import SAMPLE_RATE, file_checksum, read_unchanged, resampled_length, write_audio
from etaflow.converter import FeatureConverter
from etaflow.device import select_device
from etaflow.eta import EtaModel
from etaflow.knn import MatchError
from etaflow.manifest import read_manifest, write_table
from etaflow.mappings import MappingError
from etaflow.methods import ConversionError
from etaflow.models import read_model_info
from etaflow.pairs import choose_references, make_pairs, recordings_of
from etaflow.progress import bar
from etaflow.script import new_app
from etaflow.ssl import SSLFeatures
from etaflow.ssl.frames import FIELD, FrameGrid
from etaflow.store import Embeddings, FeatureStore, Floats
from etaflow.vad import speech_span
from etaflow.vocoder import Generator
from etaflow.voices import Voice

app = new_app()


class System:
    """A method with the models that it needs, on features and embeddings that are stored."""

    def __init__(
        self,
        manifest: pd.DataFrame,
        store: FeatureStore,
        converter: FeatureConverter,
        embeddings: Embeddings | None,
        settings: dict,
    ) -> None:
        self.manifest, self.store, self.converter = manifest, store, converter
        self.embeddings, self.settings = embeddings, settings

    def speech(self, name: str) -> Floats:
        """The frames (T, D) of an utterance between its first and last word."""
        row = self.manifest.loc[name]
        span = speech_span(read_unchanged(row["path"], row["checksum"]))
        return self.store[name][self.converter.features.grid.within(*span)]

    def voice(self, target: str, names: list[str]) -> tuple[Voice, float]:
        """A target from its references, and how many seconds of speech were taken."""
        method = self.converter.method(self.settings["method"])
        if not method.steps:
            return self.converter.voice(method.name), 0.0
        frames = [self.speech(name) for name in names]
        rate = SAMPLE_RATE / self.converter.features.grid.hop_length
        seconds = self.settings["reference_seconds"]
        limit = None if seconds is None else round(seconds * rate)
        chosen = choose_references(list(map(len, frames)), limit, self.settings["seed"], target)
        taken = [frames[index][:count] for index, count in chosen]
        vectors = None
        if method.space == "eta" and self.embeddings:
            vectors = self.embeddings.rows([names[index] for index, _ in chosen])
        voice = self.converter.voice(method.name, taken, vectors, self.settings["topk"])
        return voice, sum(map(len, taken)) / rate

    def convert(self, source: str, target: str, voice: Voice) -> np.ndarray:
        """The waveform of one conversion, at the vocoder's rate."""
        features = torch.from_numpy(self.store[source])
        embedding = self.embeddings.rows([source])[0] if self.embeddings else None
        try:
            with torch.inference_mode():
                converted = voice.mapping(features, embedding)(features)
        except (MatchError, MappingError) as error:
            raise ConversionError(f"{source} to {target}: {error}") from error
        row = self.manifest.loc[source]
        length = resampled_length(row["num_samples"], row["sample_rate"])
        waveform = self.converter.vocode(converted.cpu().numpy(), length)
        return waveform * np.float32(self.converter.gain(self.settings["method"], waveform))


@app.command()
def main(
    config: Annotated[str, typer.Option(help="JSON: method, topk, reference_seconds, pairs, seed")],
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
    table = read_manifest(manifest).set_index("utterance_id")
    pairs = make_pairs(settings["pairs"], table.reset_index(), settings["seed"])
    if settings["method"] in ("original", "copy"):
        # These have no target: each source once, against itself.
        pairs = pairs.drop_duplicates("source_id").assign(
            target_speaker=lambda rows: rows["source_speaker"],
            utterance_id=lambda rows: rows["source_id"] + "-to-" + rows["source_speaker"],
        )
    system = None
    if settings["method"] != "original":
        if not (features and model and vocoder):
            raise typer.BadParameter(f"{settings['method']} needs features, --model and --vocoder")
        device = select_device(gpus)
        store = FeatureStore(features)
        info, _ = read_model_info(model.parent)
        if (info.name, info.revision) != (store.meta.model, store.meta.revision):
            raise ConversionError(
                f"{features[0]}: features of {store.meta.model} {store.meta.revision}, not of "
                f"{info.name} {info.revision} ({model})"
            )
        grid = FrameGrid(store.meta.hop_length, FIELD)
        converter = FeatureConverter(
            SSLFeatures(info, store.meta.layer, store.meta.normalize, grid),
            Generator.from_pretrained(vocoder).to(device),
            EtaModel.from_pretrained(eta) if eta else None,
        )
        speakers = Embeddings.read(embeddings) if embeddings else None
        system = System(table, store, converter, speakers, settings)
    records = []
    with bar(len(pairs), f"converting by {settings['method']}", "utterances") as shown:
        for (target, listed), group in pairs.groupby(["target_speaker", "references"]):
            names = listed.split() or recordings_of(target, table)
            voice, seconds = system.voice(target, names) if system else (None, 0.0)
            for pair in group.itertuples():
                source = table.loc[pair.source_id]
                rate = system.converter.sample_rate if system else SAMPLE_RATE
                waveform = (
                    system.convert(pair.source_id, target, voice)
                    if system and voice
                    else read_unchanged(source["path"], source["checksum"])
                )
                path = wav_dir / f"{pair.utterance_id}.wav"
                write_audio(path, waveform, rate)
                records.append(
                    {
                        "utterance_id": pair.utterance_id,
                        "source_id": pair.source_id,
                        "source_speaker": pair.source_speaker,
                        "target_speaker": target,
                        "reference_seconds": round(seconds, 2),
                        "path": path.relative_to(output.parent).as_posix(),
                        "num_samples": len(waveform),
                        "sample_rate": rate,
                        "checksum": file_checksum(path),
                    }
                )
                shown.update()
    write_table(pd.DataFrame(records).sort_values("utterance_id"), output)


if __name__ == "__main__":
    app()

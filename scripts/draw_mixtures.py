"""Draw mixtures from a corpus, or take those of published metadata."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from etaflow.atomic import atomic_file
from etaflow.decoding import AudioError
from etaflow.manifest import read_manifest
from etaflow.script import new_app
from etaflow.separation.metadata import generate_metadata, split_by_speaker
from etaflow.separation.mixing import (
    MetadataError,
    Roots,
    metadata_columns,
    read_metadata,
    speakers_per_mixture,
    with_manifest,
)
from etaflow.separation.noise import list_noises

app = new_app()

WHAM_PARTS = {"train": "tr", "validation": "cv", "test": "tt"}


def published(tables: list[Path], speakers: int, manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows of these tables, with the manifest's paths and speakers."""
    parts = []
    for path in tables:
        part = read_metadata(path)
        if (found := speakers_per_mixture(list(part.columns))) != speakers:
            raise MetadataError(f"{path}: mixtures of {found} speakers, not of {speakers}")
        parts.append(part[metadata_columns(speakers)])
    table = pd.concat(parts, ignore_index=True)
    twice = table["mixture_ID"][table["mixture_ID"].duplicated()]
    if len(twice):
        raise MetadataError(
            f"mixture {twice.iloc[0]!r} is in several of {', '.join(map(str, tables))}"
        )
    return with_manifest(table, manifest)


def noises_of(folder: Path, part: str) -> list[str]:
    """The noises of a part: those in its own folder, or where it has none, in no other part's."""
    if (folder / WHAM_PARTS[part]).is_dir():
        return list_noises(folder, WHAM_PARTS[part])
    taken = {*WHAM_PARTS.values()}
    noises = [name for name in list_noises(folder) if Path(name).parts[0] not in taken]
    if not noises:
        raise AudioError(folder, f"no noise for {part} beside that of other parts")
    return noises


def drawn(settings: dict, part: str, manifest: pd.DataFrame, noise: Path | None) -> pd.DataFrame:
    """Mixtures of the speakers of a part: of the corpus's test split, or a share of its others."""
    seed = settings["seed"]
    if part == "test":
        own = manifest[manifest["split"] == "test"]
    else:
        training = manifest[manifest["split"] == "train"]
        held = {"validation": settings["validation_speakers"]}
        own = split_by_speaker(training, held, seed)[part]
    noises = noises_of(noise, part) if noise else None
    return generate_metadata(
        own, settings["counts"][part], settings["speakers"], Roots(Path(), noise), seed, noises
    )


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: {speakers, counts, validation_speakers, seed}; or {speakers, metadata}"
        ),
    ],
    part: Annotated[str, typer.Option(help="train, validation or test")],
    manifest: Annotated[Path, typer.Option(help="of the corpus")],
    output: Annotated[Path, typer.Option(help="CSV to write, in the columns of LibriMix")],
    metadata: Annotated[
        list[Path] | None, typer.Option(help="CSV of LibriMix to take the mixtures from; repeat")
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(help="folder of the noise; its tr, cv and tt, if there, for the three parts"),
    ] = None,
) -> None:
    """Write the metadata of a part's mixtures; without a folder, noise is synthesised."""
    table = read_manifest(manifest)
    settings = json.loads(config)
    if metadata:
        rows = published(metadata, settings["speakers"], table)
    else:
        rows = drawn(settings, part, table, noise)
    with atomic_file(output) as unfinished:
        rows.to_csv(unfinished, index=False, lineterminator="\n")


if __name__ == "__main__":
    app()

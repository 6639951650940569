"""Embeddings of any folder of recordings, and a file of its own for each."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import etaflow
from etaflow.atomic import atomic_file
from etaflow.audio import EXTENSIONS, SAMPLE_RATE
from etaflow.corpora import CorpusError, Recording, Rejected, examine
from etaflow.corpora.folder import list_tree
from etaflow.models import ModelError, ModelInfo
from etaflow.provenance import fingerprint, source_files
from etaflow.speaker import SpeakerEncoder, load_speaker_encoder
from etaflow.speaker.embedding import embed_recordings
from etaflow.store import Embeddings

# The name of the folder that a file is in; empty for one that lies in `root` itself.
BY_FOLDER = r"(?:(?:.+/)?(?P<speaker>[^/]+)/)?[^/]+"


def find_encoder(name: str, device: str | torch.device = "cpu") -> SpeakerEncoder:
    """The encoder of a model folder, or `resemblyzer`, whose weights come with its package.

    Raises:
        ModelError: there is no such folder, or it holds no speaker encoder.
    """
    if (Path(name) / "model.json").is_file():
        return load_speaker_encoder(name, device)
    if name == "resemblyzer":
        from etaflow.speaker.resemblyzer import Resemblyzer

        info = ModelInfo(name, "package", name, version(name), "published", ".")
        return Resemblyzer(info, torch.device(device))
    raise ModelError(
        f"{name}: neither a folder with a model.json (of a run: results/RUN/encoders/NAME or "
        "resources/models/NAME) nor resemblyzer, which needs none"
    )


def list_recordings(root: Path, pattern: str | None) -> tuple[pd.DataFrame, list[Rejected]]:
    """The recordings under a folder, as `embed_recordings` takes them, and the other files.

    Args:
        root: the folder.
        pattern: as in a corpus of kind `folder`; None: a speaker is the folder that a file is in.

    Raises:
        CorpusError: `root` is not a folder, nothing in it can be used, or two files have one id.
        ValueError: the pattern is not one.
    """
    listing = list_tree(root, BY_FOLDER if pattern is None else pattern)
    if pattern is None:
        name = root.resolve().name
        listing = [
            replace(item, speaker_id=item.speaker_id or name)
            if isinstance(item, Recording)
            else item
            for item in listing
        ]
    usable, rejected = examine(listing)
    rows = [
        (
            recording.utterance_id,
            recording.speaker_id,
            str(recording.path),
            info.checksum,
            info.num_samples,
            info.sample_rate,
        )
        for recording, info in usable
    ]
    columns = ["utterance_id", "speaker_id", "path", "checksum", "num_samples", "sample_rate"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("utterance_id", ignore_index=True), rejected


def _leave_out_short(
    table: pd.DataFrame, encoder: SpeakerEncoder
) -> tuple[pd.DataFrame, list[Rejected]]:
    """The recordings that are long enough for an encoder, and the others."""
    needed = encoder.shortest / SAMPLE_RATE
    short = table["num_samples"] < needed * table["sample_rate"]
    reason = f"shorter than the {needed:.3f} s that {encoder.info.name} needs"
    rejected = [Rejected(Path(path), reason) for path in table.loc[short, "path"]]
    return table[~short].reset_index(drop=True), rejected


def _check_beside(paths: list[Path], dim: int) -> None:
    """Raise `OSError` if a file that is no embedding of size `dim` would be written over."""
    for path in paths:
        if not path.exists():
            continue
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            ours = isinstance(found, np.ndarray) and found.shape == (dim,)
        except (OSError, ValueError, EOFError):
            ours = False
        if not ours:
            raise FileExistsError(
                f"{path} is no embedding of {dim} numbers, and would be written over: move it, or "
                "embed without files beside the recordings"
            )


def embed_folder(
    root: Path, output: Path, encoder: SpeakerEncoder, pattern: str | None, beside: bool
) -> list[Rejected]:
    """Write the embeddings of all recordings under a folder, and return the files left out.

    Args:
        root: the folder.
        output: HDF5 file to write, see `embed_recordings`.
        encoder: of the embeddings.
        pattern: see `list_recordings`.
        beside: write `NAME.npy`, (V,) float32, beside each recording, too.

    Raises:
        CorpusError: no recording can be used.
        OSError: `output` has the name of a recording, or something else than an embedding lies
            where one would be written beside a recording.
        ValueError: see `list_recordings` and `embed_recordings`.
    """
    if output.suffix.lower() in EXTENSIONS:
        raise FileExistsError(f"{output}: embeddings under the name of a recording; say NAME.h5")
    if not root.is_dir():
        raise CorpusError(f"{root}: {'not a' if root.exists() else 'no such'} folder")
    table, rejected = list_recordings(root, pattern)
    table, short = _leave_out_short(table, encoder)
    rejected += short
    if table.empty:
        first = f"; the first, {rejected[0].path}: {rejected[0].reason}" if rejected else ""
        raise CorpusError(
            f"{root}: no recording that can be used, of {len(rejected)} audio files{first}"
        )
    beside_paths = [Path(path).with_suffix(".npy") for path in table["path"]] if beside else []
    _check_beside(beside_paths, encoder.dim)
    code = source_files(__file__, Path(etaflow.__path__[0]))
    work = fingerprint(repr((encoder.info, table.to_csv())), *code)
    embed_recordings(encoder, table, output, work)
    if beside:
        vectors = Embeddings.read(output).rows(list(table["utterance_id"]))
        for path, vector in zip(beside_paths, vectors, strict=True):
            with atomic_file(path) as part, part.open("wb") as stream:
                np.save(stream, vector, allow_pickle=False)
    return rejected

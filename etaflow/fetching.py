"""Bringing the models of the registry (see `etaflow.models`) into folders of their own."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from etaflow.atomic import atomic_directory, write_json
from etaflow.bundles import PARTS, shipped_bundle, shipped_files
from etaflow.download import (
    ChecksumError,
    DownloadError,
    download,
    read_checksums,
    record_checksum,
)
from etaflow.models import ModelError, ModelInfo, read_model_info

# The name that the file of a `url` gets.
URL_FILES = {"knnvc-hifigan": "generator.pt", "unispeech": "encoder.pth"}
_LARGE_LAYOUT = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_LARGE = {
    **_LARGE_LAYOUT,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
# Keyword arguments of transformers' WavLMConfig and HubertConfig, whose defaults are the base
# models. The tiny one has WavLM-Large's layout.
RANDOM_SSL: dict[str, dict[str, Any]] = {
    "wavlm-tiny": {
        **_LARGE_LAYOUT,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "conv_dim": (64,) * 7,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
    },
    "wavlm-base": {},
    "wavlm-large": _LARGE,
    "hubert-base": {},
    "hubert-large": _LARGE,
}


def _write_random_ssl(entry: Mapping[str, Any], directory: Path) -> None:
    import torch
    from transformers import AutoModel, HubertConfig, Wav2Vec2FeatureExtractor, WavLMConfig

    architecture = entry["architecture"]
    kind = HubertConfig if architecture.startswith("hubert") else WavLMConfig
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entry["seed"])
        model = AutoModel.from_config(kind(**RANDOM_SSL[architecture]))
    model.save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(
        directory
    )


def fingerprint(directory: Path) -> str:
    """BLAKE2b-64 of the names and contents of all files in a folder, hexadecimal."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(file.relative_to(directory).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def _copy_shipped(architecture: str, part: Path) -> tuple[str, str]:
    """Copy a part of the bundle that comes with etaflow; its revision and weights.

    Raises:
        FileNotFoundError: there is none in this installation.
        ModelError: it has no such part.
    """
    folder = shipped_bundle() / PARTS[architecture]
    known = folder / ("config.json" if architecture == "etaflow-vocoder" else "model.json")
    if not known.is_file():
        raise ModelError(f"the bundle that comes with etaflow has no {architecture}")
    if architecture == "etaflow-vocoder":
        trained_on = json.loads(known.read_text(encoding="utf-8"))["trained_on"]
        revision, weights = fingerprint(folder), trained_on["weights"]
    else:
        info, _ = read_model_info(folder)
        # Of a speaker encoder from another package it holds nothing but the name.
        if architecture == "etaflow-encoder" and info.architecture != architecture:
            raise ModelError(
                f"the bundle that comes with etaflow has the speaker encoder {info.architecture}; "
                f"say `architecture: {info.architecture}`"
            )
        # Its own: what goes with it, such as the vocoder beside it, knows it by that.
        revision, weights = info.revision, info.weights
    for file in shipped_files(architecture):
        if file.name != "model.json":
            shutil.copyfile(file, part / file.name)
    return revision, weights


def _fetch_url(entry: Mapping[str, Any], part: Path, checksums: Path) -> str:
    """Fetch the one file of a `url`; returns its SHA-256, which is on record from then on."""
    if entry["architecture"] not in URL_FILES:
        known = ", ".join(URL_FILES)
        raise ModelError(f"no {entry['architecture']!r} comes as one file; there is {known}")
    url, file = entry["url"], part / URL_FILES[entry["architecture"]]
    for other in part.iterdir():  # left by another source of that name
        if other.is_dir():
            shutil.rmtree(other)
        elif not other.name.startswith(file.name):
            other.unlink()
    expected, by = entry["sha256"], "the config's `sha256`"
    try:
        if expected is None:
            expected, by = read_checksums(checksums).get(url), f"recorded in {checksums}"
        found = download(url, file, expected)
        record_checksum(checksums, url, found)
    except ChecksumError as error:
        file.unlink()
        raise ModelError(
            f"{error}. The expected one is {by}; what came was thrown away. Run again; if that "
            "does not help, the file there was replaced: only if you trust the new one, say "
            f"`sha256: {error.found}` in the config"
        ) from error
    except DownloadError as error:
        raise ModelError(str(error)) from error
    return found


@contextmanager
def _alone_at(directory: Path) -> Iterator[None]:
    """Workflows may share their resources, and would write the same part: the second waits."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = directory.with_name(f".{directory.name}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def fetch_model(name: str, entry: Mapping[str, Any], directory: str | Path) -> ModelInfo:
    """Bring a model of the registry into `directory`, whole or not at all.

    An interrupted download is resumed by the next call; see `etaflow.hub.fetch_repository` and
    `etaflow.download.download`. The files of a `path` stay where they are.

    The checksum of a `url` is recorded in `resources/checksums.json`, where `directory` is
    `resources/models/NAME`. An entry that states none has to bear the recorded one from then on, so
    that deleting `directory` and fetching again brings the same file.

    Raises:
        ModelError: the source or architecture is unknown, the folder of a `path` is missing, the
            bundle that comes with etaflow is or has no such part, the repository or file cannot be
            fetched, or the file's checksum is another than expected.
    """
    source, architecture = entry["source"], entry["architecture"]
    with (
        _alone_at(Path(directory)),
        atomic_directory(directory, resume=source in ("huggingface", "url")) as part,
    ):
        revision, weights, path = "", "published", "."
        if source == "random":
            if architecture not in RANDOM_SSL:
                known = ", ".join(RANDOM_SSL)
                raise ModelError(f"{name}: no random {architecture!r}; there is {known}")
            _write_random_ssl(entry, part)
            revision, weights = f"seed-{entry['seed']}", "untrained"
        elif source == "huggingface":
            from etaflow.hub import HubError, fetch_repository

            revision = entry["revision"]
            try:
                fetch_repository(entry["repo"], revision, architecture, part)
            except HubError as error:
                raise ModelError(f"{name}: {error}") from error
        elif source == "url":
            checksums = Path(directory).parents[1] / "checksums.json"
            try:
                revision = _fetch_url(entry, part, checksums)[:16]
            except ModelError as error:
                raise ModelError(f"{name}: {error}") from error
        elif source == "path":
            folder = Path(entry["path"]).expanduser().resolve()
            if not folder.is_dir():
                raise ModelError(f"{name}: {folder} is not a folder")
            revision, weights, path = fingerprint(folder), entry["weights"], str(folder)
        elif source == "package" and architecture in PARTS:
            try:
                revision, weights = _copy_shipped(architecture, part)
            except (ModelError, FileNotFoundError) as error:
                raise ModelError(f"{name}: {error}") from error
        elif source == "package":
            revision = version(architecture)
        else:
            raise ModelError(f"{name}: unknown source {source!r}")
        info = ModelInfo(name, source, architecture, revision, weights, path)
        write_json(part / "model.json", asdict(info))
    return info


def copy_model(model: Path, folder: Path) -> ModelInfo:
    """Copy the files of a fetched model, given by its `model.json`, which then points to the copy.

    Raises:
        ModelError: the model's files are gone.
        HubError: a folder of the user's own lacks what its architecture reads.
    """
    info, files = read_model_info(model.parent)
    found = [path.relative_to(files) for path in files.rglob("*") if path.is_file()]
    names = [path.as_posix() for path in found if not any(p.startswith(".") for p in path.parts)]
    if info.source in ("path", "run") or (info.architecture in PARTS and info.source == "package"):
        from etaflow.hub import needed_files

        # A user's own folder may hold more, such as the weights of another framework; one of a run
        # holds embeddings of people.
        names = needed_files(names, info.architecture)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / name, folder / name)
    write_json(folder / "model.json", {**vars(info), "path": "."})
    return info


def halve_model(folder: Path) -> ModelInfo:
    """Round the weights of a copied model to float16; it is another model then, by its revision.

    One whose weights lie in a package of their own stays as it is.

    Raises:
        ModelError: its weights are a pickle, or a weight is not finite in float16.
    """
    from etaflow.weights import halve_weights

    info, files = read_model_info(folder)
    if not halve_weights(files):
        return info
    (folder / "model.json").unlink()
    info = replace(info, revision=fingerprint(folder))
    write_json(folder / "model.json", asdict(info))
    return info

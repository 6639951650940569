"""Model repositories of the Hugging Face Hub: what is needed of one, fetched, resumed, verified.

huggingface_hub's `snapshot_download` throws away what came of a file when it is interrupted, and
does not verify checksums. So the listing, the transfer and the cache are the library's; which files
to take, where to go on and when to try again is decided here.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the client that huggingface_hub uses: every failure of the network
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from etaflow.retry import file_size, keep_trying

# What the loader of an architecture reads: of each group the first pattern that has files. Names
# are those of transformers, SpeechBrain and faster-whisper. Safetensors come before pickles.
_NEEDED: dict[str, list[tuple[str, ...]]] = {
    "wavlm": [("config.json",), ("model*.safetensors", "pytorch_model*.bin")],
    "hubert": [("config.json",), ("model*.safetensors", "pytorch_model*.bin")],
    "ecapa": [("embedding_model.ckpt",)],
    "xvector": [("embedding_model.ckpt",)],
    "wavlm-sv": [
        ("config.json",),
        ("preprocessor_config.json",),
        ("model*.safetensors", "pytorch_model*.bin"),
    ],
    "unispeech": [("*.pth", "*.pt")],
    "etaflow-encoder": [("encoder.safetensors",), ("config.json",)],
    "sepformer": [("hyperparams.yaml",), ("encoder.ckpt",), ("masknet.ckpt",), ("decoder.ckpt",)],
    "etaflow-separator": [("separator.safetensors",), ("config.json",)],
    "faster-whisper": [("model.bin",), ("config.json",), ("tokenizer.json",)],
}
# Of all else only what is no weight file: those of other frameworks, optimizers, adapters.
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|pkl|pickle|npz|h5|msgpack|ot|onnx|onnx_data|tflite|gguf)"
)


class HubError(ValueError):
    """A repository that cannot be fetched, and what to do."""


class _Damaged(Exception):
    """A file that came, but not as the Hub lists it."""


def needed_files(paths: Iterable[str], architecture: str) -> list[str]:
    """The files of a repository to fetch: what its architecture reads, and texts.

    Raises:
        HubError: the architecture is unknown, or the repository has none of what it reads.
    """
    if architecture not in _NEEDED:
        raise HubError(f"architecture {architecture!r}: allowed are {', '.join(_NEEDED)}")
    paths = sorted(paths)
    wanted = {path for path in paths if not _WEIGHTS.fullmatch(path)}
    for group in _NEEDED[architecture]:
        found = [[path for path in paths if fnmatchcase(path, pattern)] for pattern in group]
        first = next(filter(None, found), None)
        if first is None:
            raise HubError(f"there is no {' or '.join(group)}, which {architecture} needs")
        wanted.update(first)
    return sorted(wanted)


def _is_whole(path: Path, file: RepoFile) -> bool:
    if file_size(path) != file.size or not path.is_file():
        return False
    if file.lfs is None:
        return git_hash(path.read_bytes()) == file.blob_id
    with path.open("rb") as stream:
        return sha_fileobj(stream).hex() == file.lfs.sha256


def _part(path: Path, file: RepoFile) -> Path:
    # Named by its content, so that a part of another revision's file is never carried on with.
    return path.with_name(f"{path.name}.{file.blob_id}.incomplete")


def _prepare(directory: Path, files: Iterable[RepoFile]) -> None:
    """Remove what does not belong to these files, and see that the rest of them has room."""
    listed = [(directory / file.path, file) for file in files]
    kept = {path for path, _ in listed} | {_part(path, file) for path, file in listed}
    for path in directory.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    needed = sum(file.size for _, file in listed) - sum(map(file_size, kept))
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise HubError(
            f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free in {directory}"
        )


def _transient(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, HTTPError | _Damaged)


def _fetch_file(repo: str, revision: str, file: RepoFile, path: Path, endpoint: str | None) -> None:
    part = _part(path, file)
    part.parent.mkdir(parents=True, exist_ok=True)

    def transfer() -> None:
        if file_size(part) > file.size:
            part.unlink()
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(repo, file.path, revision=revision, endpoint=endpoint),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers() | {"Accept-Encoding": "identity"},
                expected_size=file.size,
                displayed_filename=file.path,
            )
        if not _is_whole(part, file):
            part.unlink()
            raise _Damaged(f"{file.path} came damaged")

    cached = try_to_load_from_cache(repo, file.path, revision=revision)
    if isinstance(cached, str) and _is_whole(Path(cached), file):
        shutil.copyfile(cached, part)
    else:
        keep_trying(transfer, _transient, part)
    os.replace(part, path)


def _copy_cached(repo: str, revision: str, architecture: str, directory: Path) -> bool:
    """Take the repository from the Hub's cache on this machine, if all that is needed is there."""
    try:
        # Nothing is asked to be complete: which files are needed is decided below.
        snapshot = Path(
            snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
        )
        files = [path for path in snapshot.rglob("*") if path.is_file()]
        names = needed_files([f.relative_to(snapshot).as_posix() for f in files], architecture)
    except (LocalEntryNotFoundError, HubError):
        return False
    for index in snapshot.glob("*.index.json"):  # weights in several files
        if not {*json.loads(index.read_text())["weight_map"].values()} <= set(names):
            return False
    _prepare(directory, [])
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, directory / name)
    return True


def _advice(error: Exception, repo: str, revision: str) -> str:
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return f"it is gated: accept its terms on its page there, then {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision}: check its spelling"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return f"access was refused ({status}): check its name; if it is private, {login}"
    if status == 404:
        return "it, or one of its files, is not there (404): check its name and revision"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the Hub's cache on this machine has not all of it"
    return f"{str(error) or type(error).__name__}. Run again to resume"


def fetch_repository(
    repo: str, revision: str, architecture: str, directory: Path, endpoint: str | None = None
) -> None:
    """Fetch what `architecture` needs of a repository into `directory`.

    A file that is there is kept if its checksum is the Hub's, one that is there in part is resumed.
    Files that are in the Hub's cache on this machine are copied from it; where the Hub cannot be
    asked, or refuses, the cache alone will do.

    Args:
        repo: `owner/name`.
        revision: a full commit hash.
        architecture: of `models` in the config.
        directory: exists; what in it is no part of these files is removed.
        endpoint: of the Hub; by default HF_ENDPOINT.

    Raises:
        HubError: there is no such repository or revision, no access, no network, no space, or
            nothing that the architecture could use.
    """
    try:
        try:
            tree = HfApi(endpoint=endpoint).list_repo_tree(repo, recursive=True, revision=revision)
            listed = {file.path: file for file in tree if isinstance(file, RepoFile)}
        except (HTTPError, OfflineModeIsEnabled):
            if _copy_cached(repo, revision, architecture, directory):
                return
            raise
        files = [listed[path] for path in needed_files(listed, architecture)]
        _prepare(directory, files)
        for file in files:
            path = directory / file.path
            if not path.resolve().is_relative_to(directory.resolve()):
                raise HubError(f"refused to write {file.path!r}")
            if not _is_whole(path, file):
                _fetch_file(repo, revision, file, path, endpoint)
    except (HTTPError, OSError, _Damaged, HubError) as error:
        advice = str(error) if isinstance(error, HubError) else _advice(error, repo, revision)
        raise HubError(f"{repo} of the Hugging Face Hub: {advice}") from error


def pretrained_folder(source: str | Path, files: Sequence[str]) -> Path:
    """The folder to load something from; a repository is fetched into the Hub's cache.

    What the cache has already is not fetched again, and suffices where there is no network.

    Args:
        source: a folder, or, as text, `owner/name` or `owner/name@revision` of a repository. If
            there is such a folder, it is meant.
        files: patterns of the files to fetch, such as `*.json`; `*` stands for folders, too.

    Raises:
        HubError: there is neither such a folder nor such a repository, or it cannot be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    named = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", str(source), re.ASCII)
    if named and ".." in str(source):
        named = None
    if isinstance(source, Path) or named is None:
        raise HubError(f"{source}: there is no such folder, and it is no repository (owner/name)")
    repo, revision = named.group(1), named.group(2) or "main"
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(files)))
    except (HTTPError, OSError, HFValidationError) as error:
        # Where the cache does not help either, the cause says why the Hub could not be asked.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        advice = _advice(cause if isinstance(cause, Exception) else error, repo, revision)
        raise HubError(
            f"{source}: there is no such folder, and of the Hugging Face Hub's repository: {advice}"
        ) from error

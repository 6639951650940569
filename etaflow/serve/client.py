"""A client of `etaflow serve`: files in, files and facts out. Needs no PyTorch."""

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from etaflow.atomic import atomic_directory, atomic_file
from etaflow.serve.exchange import (
    HEALTH,
    MAX_ANSWER_BYTES,
    Answer,
    ClientError,
    Exchange,
    Field,
    Progress,
    form,
    read_object,
)

__all__ = ["Client", "ClientError", "Converted"]

# Longer than a server takes by default before it gives up itself.
TIMEOUT_SECONDS = 150.0
RETRIES = 3
_FORMATS = {".wav": "wav", ".flac": "flac"}
_BEGINNINGS = {"wav": b"RIFF", "flac": b"fLaC"}
_MAX_SOURCES = 100
_ANY = "application/octet-stream"
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Converted:
    """A conversion's result: the bytes of a `format` file, and what it was made with."""

    audio: bytes
    format: str
    method: str
    weights: str


class Client:
    """Asks a server for conversions, decisions, sources and measures.

    Recordings are paths to WAV, FLAC, Ogg or MP3 files. Before one is sent, the server is asked
    who it is and how much it takes. All methods raise `ClientError`, and nothing else: a file that
    is missing or cannot be written, no server, another server, a wrong key, a refusal.

    Args:
        url: of the server.
        api_key: that it wants; by default what the environment variable ETAFLOW_API_KEY holds.
        timeout: seconds without a byte of an answer after which a request is given up.
        retries: how often a request is repeated, with growing waits, after a lost connection or
            while a server is busy (429, 503). Other refusals are final.
        progress: is called with what is being done, and how many bytes of how many are sent.

    Attributes:
        url: of the server.
        tasks: that it can do, and on which weights, as it said last; empty before it was asked.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        progress: Progress | None = None,
    ) -> None:
        key = os.environ.get("ETAFLOW_API_KEY") if api_key is None else api_key
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ClientError("the key is no line of printable ASCII characters; check it")
        self._exchange = Exchange(url, key or None, timeout, retries, progress)
        self.url = self._exchange.url
        self.tasks: dict[str, str] = {}

    def health(self) -> dict[str, Any]:
        """What the server says of itself: `version`, `run`, `tasks`, `methods`, `limits` …"""
        answer = self._facts(self._exchange.ask(HEALTH), ("status", "version", "run"))
        tasks, limits = answer.get("tasks"), answer.get("limits")
        if not isinstance(tasks, dict) or not isinstance(limits, dict):
            raise self._exchange.stranger()
        self.tasks = {str(task): str(weights) for task, weights in tasks.items()}
        return answer

    def convert(
        self,
        source: str | Path,
        references: Sequence[str | Path],
        output: str | Path | None = None,
        method: str | None = None,
        topk: int = 4,
    ) -> Converted:
        """Say the source in the voice of the references.

        Args:
            source: recording whose words are kept.
            references: recordings of the target speaker; may be none for the method copy.
            output: WAV or FLAC file to write, whole or not at all; None: nothing is written, and
                the result is WAV.
            method: one of those that `health` names; None: the server's default.
            topk: neighbours a frame, 1 or more.
        """
        files = [("source", Path(source)), *(("references", Path(path)) for path in references)]
        kind = "wav" if output is None else _check_output(Path(output), files)
        values = {"topk": str(topk), "format": kind}
        if method is not None:
            values["method"] = method
        answer = self._post("convert", files, values)
        if not answer.body.startswith(_BEGINNINGS[kind]):
            raise self._exchange.stranger()
        if output is not None:
            try:
                with atomic_file(output) as part:
                    part.write_bytes(answer.body)
            except OSError as error:
                raise ClientError(f"{output} cannot be written: {error}") from error
        used, weights = (answer.headers.get(f"X-Etaflow-{it}", "") for it in ("Method", "Weights"))
        return Converted(answer.body, kind, used, weights)

    def verify(self, one: str | Path, other: str | Path) -> dict[str, Any]:
        """Whether two recordings are of one speaker.

        Returns:
            `same_speaker`, `score`, `unit`, `threshold`, `system`, `trials`, `weights`.
        """
        answer = self._post("verify", [("one", Path(one)), ("other", Path(other))])
        facts = self._facts(answer, ("same_speaker", "score", "unit", "threshold", "weights"))
        if not all(isinstance(facts[name], int | float) for name in ("score", "threshold")):
            raise self._exchange.stranger()
        return facts

    def analyze(self, recording: str | Path) -> dict[str, Any]:
        """What Eta-WavLM lays to the speaker of a recording: the measures of `etaflow analyze`."""
        return self._facts(self._post("analyze", [("recording", Path(recording))]), ())

    def separate(self, mixture: str | Path, folder: str | Path) -> list[Path]:
        """Write each speaker of a mixture to a file of a new folder, whole or not at all.

        Returns:
            The files `source1.wav`, `source2.wav` …: 32-bit float, of the mixture's rate.
        """
        folder = Path(folder)
        if folder.exists() or folder.is_symlink():
            raise ClientError(f"{folder} exists: name a folder that does not")
        answer = self._post("separate", [("mixture", Path(mixture))])
        try:
            sources = _unzip(answer.body)
        except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OSError) as error:
            raise ClientError(f"{self.url} sent no usable sources: {error}") from error
        try:
            with atomic_directory(folder) as part:
                for name, source in sources.items():
                    (part / name).write_bytes(source)
        except OSError as error:
            raise ClientError(f"{folder} cannot be written: {error}") from error
        return [folder / name for name in sources]

    def _post(
        self, task: str, files: Sequence[tuple[str, Path]], values: Mapping[str, str] = _NOTHING
    ) -> Answer:
        """Send a task's form, once the server is known to be one, and to take as much."""
        size = sum(_check_recording(path) for _, path in files)
        allowed = self.health()["limits"].get("max_payload_mb")
        if isinstance(allowed, int | float) and size > allowed * 1e6:
            raise ClientError(
                f"{self.url} takes {allowed:g} MB at a time, and the recordings have "
                f"{size / 1e6:.1f} MB: send shorter ones, or as FLAC or Ogg"
            )
        fields: list[Field] = list(values.items())
        try:
            # Names of files say something of people, and stay here.
            fields += [(name, (name, path.read_bytes(), _ANY)) for name, path in files]
        except OSError as error:
            raise ClientError(str(error)) from error
        return self._exchange.ask(f"/v1/{task}", *form(fields))

    def _facts(self, answer: Answer, expected: Sequence[str]) -> dict[str, Any]:
        """The JSON object of an answer, which has the keys that are expected."""
        try:
            facts = read_object(answer)
        except ValueError as error:
            raise self._exchange.stranger() from error
        if not set(expected) <= set(facts):
            raise self._exchange.stranger()
        return facts


def _check_recording(path: Path) -> int:
    """The bytes of a file.

    Raises:
        ClientError: it is missing, a folder, empty, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
    except (OSError, ValueError) as error:
        raise ClientError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not size:
        raise ClientError(f"{path} is empty")
    return size


def _check_output(path: Path, files: Sequence[tuple[str, Path]]) -> str:
    """The format that a path's suffix names.

    Raises:
        ClientError: it names another, or the path is a folder or one of the recordings.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ClientError(f"{path}: written are .wav and .flac, not {path.suffix or 'no suffix'}")
    if path.is_dir():
        raise ClientError(f"{path} is a folder; give the file to write")
    for _, recording in files:
        if path.exists() and recording.exists() and path.samefile(recording):
            raise ClientError(f"{path} is one of the recordings; write to another file")
    return kind


def _unzip(content: bytes) -> dict[str, bytes]:
    """The files of a ZIP file that holds source1.wav, source2.wav … and nothing else.

    Raises:
        ValueError: it holds something else, or too much.
        BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if (
            not names
            or len(names) > _MAX_SOURCES
            or not all(re.fullmatch(r"source[1-9]\d*\.wav", name, re.ASCII) for name in names)
        ):
            raise ValueError(f"the files in it are not source1.wav, source2.wav … but {names[:3]}")
        if len(set(names)) < len(names):
            raise ValueError("two files in it have one name")
        # `zipfile` unpacks no more of a file than the size that it states.
        size = sum(info.file_size for info in infos)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"its files would have {size:,} bytes")
        sources = {name: archive.read(name) for name in names}
    for name, source in sources.items():
        if not source.startswith(_BEGINNINGS["wav"]):
            raise ValueError(f"{name} is no WAV file")
    return sources

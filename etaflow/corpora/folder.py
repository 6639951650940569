"""Any folder of audio files whose paths tell who speaks."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etaflow.audio import EXTENSIONS
from etaflow.corpora.base import Listing, Recording, Rejected, read_text, walk


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a path pattern.

    Raises:
        ValueError: it is not a regular expression, or has no group named `speaker`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if "speaker" not in compiled.groupindex:
        raise ValueError(f"pattern {pattern!r} has no group (?P<speaker>…)")
    return compiled


def _name(value: str) -> str:
    return value.replace("/", "_")  # ids name files later on


def list_tree(
    root: Path,
    pattern: str,
    transcript_of: Callable[[Path], Path] | None = None,
    split: str | None = None,
) -> Listing:
    """List the audio files under `root`.

    Args:
        root: the folder.
        pattern: regular expression that a file's path relative to `root`, with `/` between folders
            and without its suffix, matches in full. Its group `speaker` is the speaker's id;
            `session` (else "0") and `utterance` (else the whole path) are optional.
        transcript_of: from the path of an audio file to that of its transcript, which may be
            missing: then the text is empty, as it is without this function.
        split: of all recordings, or None.

    Raises:
        CorpusError: `root` is not a folder.
        ValueError: the pattern is not one.
    """
    compiled = compile_pattern(pattern)
    listing: Listing = []
    for path in walk(root):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        relative = path.relative_to(root).with_suffix("").as_posix()
        match = compiled.fullmatch(relative)
        if match is None:
            listing.append(Rejected(path, "path does not match the pattern"))
            continue
        found = match.groupdict()
        transcript = transcript_of(path) if transcript_of else None
        try:
            text = read_text(transcript) if transcript and transcript.exists() else ""
        except ValueError as error:
            listing.append(Rejected(path, str(error)))
            continue
        listing.append(
            Recording(
                utterance_id=_name(found.get("utterance") or relative),
                speaker_id=_name(found["speaker"] or ""),
                session_id=_name(found.get("session") or "0"),
                path=path,
                text=text,
                split=split,
            )
        )
    return listing


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List a folder by `pattern`; transcripts end in `text_suffix`, see `list_tree`."""
    suffix = config["text_suffix"]
    return list_tree(root, config["pattern"], lambda path: path.with_name(path.stem + suffix))

"""Kathbath (Javed et al. 2022, arXiv 2208.11761): 1,684 hours of 12 Indian languages, read aloud.

https://github.com/AI4Bharat/IndicSUPERB. `kb_data_clean_m4a/language/subset/audio/` holds files
`utterance-speaker-gender.m4a`, and `language/subset/transcription_n2w.txt` a line each, a tab
between the file's name and the text.

WAV or FLAC files under the same names will do as well, also with a folder for each speaker below
`audio`, as `utilities/structure.py` of IndicSUPERB makes one. A `root` that has them and the M4A
files holds each utterance twice, which is an error.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etaflow.audio import EXTENSIONS
from etaflow.corpora.archives import Part, fetch_archive
from etaflow.corpora.base import CorpusError, Listing, Recording, Rejected, read_text, walk

URL = "https://indic-asr-public.objectstore.e2enetworks.net/indic-superb/kathbath/clean"
# All languages are in each; their authors publish no checksums.
ARCHIVES = ("train_audio", "valid_audio", "testkn_audio", "testunk_audio", "transcripts_n2w")
CONTENTS = "kb_data_clean_m4a"
NOISY = "kb_data_noisy"  # copies of clean recordings, under the same names
LANGUAGES = (
    "bengali",
    "gujarati",
    "hindi",
    "kannada",
    "malayalam",
    "marathi",
    "odia",
    "punjabi",
    "sanskrit",
    "tamil",
    "telugu",
    "urdu",
)
# Speakers of test_unknown are in no other subset.
SPLITS = {"train": "train", "valid": "test", "test_known": "test", "test_unknown": "test"}
NAME = re.compile(r"\d+-(?P<speaker>\d+)-[mf]")
TRANSCRIPTS = ("transcription_n2w.txt", "transcription.txt")


def fetch(root: Path, config: Mapping[str, Any], url: str = URL) -> None:
    """Fetch all languages, 92 GB, into `root/ARCHIVE/kb_data_clean_m4a`, see `fetch_archive`.

    The checksums of the first download are recorded in `checksums.json`, two folders above `root`:
    that is `resources/checksums.json` where `root` is `resources/corpora/kathbath`.
    """
    record = root.absolute().parents[1] / "checksums.json"
    for name in ARCHIVES:
        part = Part(f"{url}/{name}.tar", f"{name}.tar", None)
        folder = root / name
        fetch_archive([part], folder, contents=folder / CONTENTS, record=record)


def _subset_of(path: Path, root: Path, language: str) -> str | None:
    folders = path.relative_to(root).parts[:-1]
    if any(folder.startswith(NOISY) for folder in folders) or language not in folders:
        return None
    below = folders[folders.index(language) + 1 :]
    return below[0] if below and below[0] in SPLITS else None


def _texts(path: Path) -> dict[str, str]:
    pairs = (line.partition("\t") for line in read_text(path).splitlines())
    return {Path(name.strip()).stem: text for name, _, text in pairs}


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List a `language`: subset `train` is `train`, `valid` and both tests are `test`.

    The speakers of `valid` and `test_known` are those of `train`. A `split` in the config divides
    all anew.

    Raises:
        CorpusError: `root` is not a folder, or has nothing of the language.
        ValueError: there is no such language.
    """
    language = config["language"]
    if language not in LANGUAGES:
        raise ValueError(f"kathbath has no language {language!r}; it has {', '.join(LANGUAGES)}")
    listing: Listing = []
    texts: dict[str, str] = {}
    audio: list[tuple[Path, str]] = []
    for path in walk(root):
        subset = _subset_of(path, root, language)
        if subset is None:
            continue
        if path.name in TRANSCRIPTS:
            try:
                found = _texts(path)
            except ValueError as error:
                listing.append(Rejected(path, str(error)))
                continue
            # The first name of the two, with numbers in words, wins.
            texts = texts | found if path.name == TRANSCRIPTS[0] else found | texts
        elif path.suffix.lower() in EXTENSIONS:
            audio.append((path, subset))
    if not audio:
        raise CorpusError(f"{root}: no {language}/SUBSET of Kathbath in it")
    for path, subset in audio:
        match = NAME.fullmatch(path.stem)
        if match is None:
            listing.append(Rejected(path, "name is not UTTERANCE-SPEAKER-GENDER"))
            continue
        split = None if config.get("split") else SPLITS[subset]
        text = texts.get(path.stem, "")
        listing.append(Recording(path.stem, match["speaker"], "0", path, text, split))
    return listing

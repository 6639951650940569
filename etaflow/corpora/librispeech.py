"""LibriSpeech (Panayotov et al. 2015), 16 kHz FLAC, https://www.openslr.org/12.

`subset/speaker/chapter/speaker-chapter-number.flac`, one transcript file a chapter.

lhotse's `prepare_librispeech` is not used: it opens each file's header, and one damaged or empty
file ends it with an exception, and it passes over recordings without a transcript.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from etaflow.corpora.archives import Part, fetch_archive
from etaflow.corpora.base import (
    CorpusError,
    Listing,
    Recording,
    Rejected,
    corpus_folder,
    read_text,
    walk,
)
from etaflow.corpora.folder import list_tree

URL = "http://www.openslr.org/resources/12"
PATTERN = r"(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>[^/]+)"

# SHA-256, from torchaudio.datasets.librispeech (BSD 2-clause).
CHECKSUMS = {
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}


def fetch_subsets(
    root: Path, subsets: list[str], name: str, url: str, checksums: Mapping[str, str]
) -> None:
    """Fetch the subsets of a corpus that OpenSLR keeps as one archive each.

    Raises:
        ValueError: a subset is none of those published.
        CorpusError: see `fetch_archive`.
    """
    for subset in subsets:
        if subset not in checksums:
            raise ValueError(f"{name} has no subset {subset!r}; it has {', '.join(checksums)}")
    for subset in subsets:
        archive = f"{subset}.tar.gz"
        part = Part(f"{url}/{archive}", archive, checksums[subset])
        fetch_archive([part], root, contents=root / name / subset)


def published_split(subset: str, config: Mapping[str, Any]) -> str | None:
    """`train` for train-*, `test` for dev-* and test-*, None where the config splits anew."""
    if config.get("split"):
        return None
    if subset.startswith("train"):
        return "train"
    if subset.startswith(("dev", "test")):
        return "test"
    raise CorpusError(f"subset {subset!r} is neither train-*, dev-* nor test-*: give a `split`")


def fetch(
    root: Path,
    config: Mapping[str, Any],
    url: str = URL,
    checksums: Mapping[str, str] = CHECKSUMS,
) -> None:
    """Fetch `subsets` into `root/LibriSpeech`, see `fetch_subsets`."""
    fetch_subsets(root, config["subsets"], "LibriSpeech", url, checksums)


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List `subsets`; an utterance that has a transcript but no audio is listed, too."""
    listing: Listing = []
    corpus = corpus_folder(root, "LibriSpeech")
    for subset in config["subsets"]:
        split = published_split(subset, config)
        texts: dict[Path, str] = {}
        for path in walk(corpus / subset):
            if path.name.endswith(".trans.txt"):
                try:
                    lines = read_text(path).splitlines()
                except ValueError as error:
                    listing.append(Rejected(path, str(error)))
                    continue
                for line in lines:
                    utterance_id, _, text = line.partition(" ")
                    texts[path.with_name(f"{utterance_id}.flac")] = text
        for item in list_tree(corpus / subset, PATTERN, split=split):
            if isinstance(item, Recording):
                item = replace(item, text=texts.pop(item.path, ""))
            listing.append(item)
        listing += [Rejected(path, "named by a transcript but missing") for path in sorted(texts)]
    return listing

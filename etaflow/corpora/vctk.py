"""VCTK 0.92 (Yamagishi, Veaux, MacDonald 2019), 48 kHz FLAC, https://doi.org/10.7488/ds/2645.

`wav48_silence_trimmed/speaker/speaker_number_mic2.flac` and `txt/speaker/speaker_number.txt`.

lhotse's recipe is not used: `download_vctk` unpacks this archive, which has no folder of its own,
into the folder of all corpora, and `prepare_vctk` opens each file's header, so that one damaged
file ends it with an exception.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etaflow.corpora.archives import Part, fetch_archive
from etaflow.corpora.base import Listing, corpus_folder
from etaflow.corpora.folder import list_tree

NAME = "VCTK-Corpus-0.92"
URL = f"https://datashare.ed.ac.uk/bitstream/handle/10283/3443/{NAME}.zip"
# SHA-256, from torchaudio.datasets.vctk (BSD 2-clause).
CHECKSUM = "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c"
PATTERN = r"(?P<speaker>[^/]+)/(?P<utterance>[^/]+)_mic2"


def fetch(root: Path, config: Mapping[str, Any], url: str = URL, checksum: str = CHECKSUM) -> None:
    """Fetch the corpus into `root/VCTK-Corpus-0.92`, see `fetch_archive`."""
    fetch_archive([Part(url, f"{NAME}.zip", checksum)], root, contents=root / NAME)


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List the recordings of the second microphone, the one that is used for synthesis.

    Speaker p280 has none, and p315 has no transcripts: its texts are empty.
    """
    corpus = corpus_folder(root, NAME)

    def transcript_of(path: Path) -> Path:
        name = path.stem.removesuffix("_mic2")
        return corpus / "txt" / path.parent.name / f"{name}.txt"

    listing = list_tree(corpus / "wav48_silence_trimmed", PATTERN, transcript_of)
    return [item for item in listing if not item.path.stem.endswith("_mic1")]

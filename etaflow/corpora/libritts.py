"""LibriTTS (Zen et al. 2019), 24 kHz WAV, https://www.openslr.org/60.

`subset/speaker/chapter/utterance.wav` with `utterance.normalized.txt` beside it.

lhotse's `prepare_libritts` is not used: it opens each file's header, and one damaged file ends it
with an exception.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etaflow.corpora.base import Listing, corpus_folder
from etaflow.corpora.folder import list_tree
from etaflow.corpora.librispeech import PATTERN, fetch_subsets, published_split

URL = "http://www.openslr.org/resources/60"

# SHA-256, from torchaudio.datasets.libritts (BSD 2-clause).
CHECKSUMS = {
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}


def fetch(
    root: Path,
    config: Mapping[str, Any],
    url: str = URL,
    checksums: Mapping[str, str] = CHECKSUMS,
) -> None:
    """Fetch `subsets` into `root/LibriTTS`, see `fetch_subsets`."""
    fetch_subsets(root, config["subsets"], "LibriTTS", url, checksums)


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List `subsets` with their normalised transcripts."""
    listing: Listing = []
    corpus = corpus_folder(root, "LibriTTS")
    for subset in config["subsets"]:
        split = published_split(subset, config)
        listing += list_tree(
            corpus / subset, PATTERN, lambda path: path.with_suffix(".normalized.txt"), split
        )
    return listing

"""VoxCeleb1 (Nagrani, Chung, Zisserman 2017), 16 kHz WAV, https://mm.kaist.ac.kr/datasets/voxceleb.

`wav/speaker/video/number.wav`, for the development and the test speakers in one folder or in two.
It has no open download: its authors mail a key to whoever asks for one.

lhotse's recipe is not used: it knows no key, and opens each file's header, so that one damaged file
ends it with an exception.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from etaflow.corpora.archives import COMPLETED, Part, fetch_archive
from etaflow.corpora.base import CorpusError, Listing, Recording
from etaflow.corpora.folder import list_tree

URL = "https://cn01.mmai.io/download/voxceleb"
REGISTRATION = "https://mm.kaist.ac.kr/datasets/voxceleb"
# The pieces of each archive with their SHA-256, from torchaudio.datasets.voxceleb1 (BSD 2-clause).
ARCHIVES = {
    "dev": {
        "vox1_dev_wav_partaa": "21ec6ca843659ebc2fdbe04b530baa4f191ad4b0971912672d92c158f32226a0",
        "vox1_dev_wav_partab": "311d21e0c8cbf33573a4fce6c80e5a279d80736274b381c394319fc557159a04",
        "vox1_dev_wav_partac": "92b64465f2b2a3dc0e4196ae8dd6828cbe9ddd1f089419a11e4cbfe2e1750df0",
        "vox1_dev_wav_partad": "00e6190c770b27f27d2a3dd26ee15596b17066b715ac111906861a7d09a211a5",
    },
    "test": {
        "vox1_test_wav.zip": "8de57f347fe22b2c24526e9f444f689ecf5096fc2a92018cf420ff6b5b15eaea",
    },
}
# Of VoxCeleb1: the ids of VoxCeleb2 begin with id0. The folders above a speaker's may be any.
PATTERN = r"(?:.+/)?(?P<speaker>id1\d{4})/(?P<session>[^/]+)/\d{5}"
TEST_SPEAKERS = {f"id{number}" for number in range(10270, 10310)}  # of the trials VoxCeleb1-O


def fetch(
    root: Path,
    config: Mapping[str, Any],
    url: str = URL,
    archives: Mapping[str, Mapping[str, str]] = ARCHIVES,
) -> None:
    """Fetch the corpus into `root/dev` and `root/test`, see `fetch_archive`.

    The user's key is read from the environment variable that `key_env` names; it is sent to `url`
    and shown nowhere.

    Raises:
        CorpusError: the variable is not set, or see `fetch_archive`.
    """
    if all((root / folder / COMPLETED).is_file() for folder in archives):
        return
    variable = config["key_env"]
    key = os.environ.get(variable, "").strip()
    if not key:
        raise CorpusError(
            f"the environment variable {variable} is not set: it holds the key of your own that "
            f"VoxCeleb's authors mail you after registration, see {REGISTRATION}"
        )
    for folder, checksums in archives.items():
        parts = [
            Part(f"{url}?{urlencode({'key': key, 'file': name})}", name, checksum)
            for name, checksum in checksums.items()
        ]
        try:
            fetch_archive(parts, root, contents=root / folder)
        except CorpusError as error:
            raise CorpusError(
                f"{error}. (Should the site refuse: is the key in {variable} right, and not too "
                f"old? {REGISTRATION} gives new ones)"
            ) from error


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List the corpus: `test` are the 40 speakers of VoxCeleb1-O, `train` all others."""
    listing: Listing = []
    for item in list_tree(root, PATTERN):
        if isinstance(item, Recording):
            side = "test" if item.speaker_id in TEST_SPEAKERS else "train"
            item = replace(
                item,
                utterance_id=f"{item.speaker_id}-{item.session_id}-{item.path.stem}",
                split=None if config.get("split") else side,
            )
        listing.append(item)
    return listing

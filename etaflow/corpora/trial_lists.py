"""The published trial lists of VoxCeleb1, https://mm.kaist.ac.kr/datasets/voxceleb.

A line a trial: `1` (same speaker) or `0`, and two paths `speaker/video/number.wav`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from etaflow.atomic import part_path, replace_with_part
from etaflow.corpora.base import CorpusError
from etaflow.download import DownloadError, download

URL = "https://mm.kaist.ac.kr/datasets/voxceleb/meta"


@dataclass(frozen=True)
class TrialList:
    """A file of trials."""

    name: str
    md5: str  # hexadecimal


# The cleaned lists. MD5 from PaddleSpeech's examples/voxceleb/sv0/local (Apache 2.0).
TRIAL_LISTS = {
    "vox1-o": TrialList("veri_test2.txt", "b73110731c9223c1461fe49cb48dddfc"),
    "vox1-e": TrialList("list_test_all2.txt", "a53e059deb562ffcfc092bf5d90d9f3a"),
    "vox1-h": TrialList("list_test_hard2.txt", "857790e09d579a68eb2e339a090343c8"),
}


def fetch_trial_list(name: str, output: Path, url: str = URL) -> None:
    """Fetch a list, whole and verified or not at all; an interrupted download is resumed.

    Args:
        name: `vox1-o`, `vox1-e` or `vox1-h`.
        output: file to write.
        url: the folder that has the lists; https, or on this machine.

    Raises:
        CorpusError: there is no list of that name, the download fails, or its checksum is wrong.
    """
    if name not in TRIAL_LISTS:
        raise CorpusError(f"no trial list {name!r}; there are {', '.join(TRIAL_LISTS)}")
    wanted = TRIAL_LISTS[name]
    part = part_path(output)
    try:
        download(f"{url}/{wanted.name}", part)
    except DownloadError as error:
        raise CorpusError(f"{name}: {error}") from error
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != wanted.md5:
        part.unlink()
        raise CorpusError(
            f"{name}: MD5 of {url}/{wanted.name} expected {wanted.md5}, found {found}; the list "
            "there is another than the published one, and was thrown away"
        )
    replace_with_part(output)

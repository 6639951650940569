"""LibriMix's metadata and WHAM!'s noise, as they are published.

https://github.com/JorisCos/LibriMix (MIT) has a CSV a part, with the gains of every mixture. The
noise is that of WHAM! (Wichern et al. 2019, CC BY-NC 4.0), which LibriMix's own program fetches.
"""

from pathlib import Path

from etaflow.atomic import part_path, replace_with_part
from etaflow.corpora.archives import Part, fetch_archive
from etaflow.corpora.base import CorpusError
from etaflow.download import (
    ChecksumError,
    DownloadError,
    download,
    read_checksums,
    record_checksum,
)

HEADER = b"mixture_ID,source_1_path,"
COMMIT = "b898ca375c03e4039cdb3dbe3dd485aad58ec7d1"
URL = f"https://raw.githubusercontent.com/JorisCos/LibriMix/{COMMIT}/metadata"
SUBSETS = ("train-clean-360", "train-clean-100", "dev-clean", "test-clean")
METADATA = tuple(f"libri{n}mix_{subset}" for n in (2, 3) for subset in SUBSETS)
WHAM = "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/wham_noise.zip"


def fetch_metadata(name: str, output: Path, record: Path, url: str = URL) -> None:
    """Fetch one of LibriMix's tables, whole or not at all.

    Args:
        name: one of `METADATA`.
        output: CSV to write.
        record: JSON of checksums by url: that of the first download, which later ones must match.
        url: the folder that has LibriMix's folders of metadata; https, or on this machine.

    Raises:
        CorpusError: there is no table of that name, the download fails, is another than before, or
            no metadata.
    """
    if name not in METADATA:
        raise CorpusError(f"no metadata {name!r}; there are {', '.join(METADATA)}")
    place = f"{url}/Libri{name[5]}Mix/{name}.csv"
    part = part_path(output)
    try:
        found = download(place, part, read_checksums(record).get(place))
    except ChecksumError as error:
        part.unlink()
        raise CorpusError(
            f"{name}: {place} is another than when it was first fetched ({record} has its "
            "SHA-256), and was thrown away"
        ) from error
    except DownloadError as error:
        raise CorpusError(f"{name}: {error}") from error
    with part.open("rb") as stream:
        beginning = stream.read(len(HEADER))
    if beginning != HEADER:
        part.unlink()
        raise CorpusError(f"{name}: what {place} gave is no table of mixtures")
    record_checksum(record, place, found)
    replace_with_part(output)


def fetch_noise(root: Path, url: str = WHAM) -> None:
    """Fetch WHAM!'s noise, 17 GB that become 35, into `root/wham_noise`.

    The checksum of the first download is recorded, two folders above `root`; see `fetch_archive`.

    Raises:
        CorpusError: as `fetch_archive`, or the archive has no training noise.
    """
    record = root.absolute().parents[1] / "checksums.json"
    fetch_archive([Part(url, "wham_noise.zip", None)], root.parent, contents=root, record=record)
    if not (root / "wham_noise" / "tr").is_dir():
        raise CorpusError(f"{root}: no wham_noise/tr was in {url}")

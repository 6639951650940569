"""LibriMix's metadata and WHAM!'s noise, as they are published.

https://github.com/JorisCos/LibriMix (MIT) has a CSV a part, with the gains of every mixture. The
noise is that of WHAM! (Wichern et al. 2019, CC BY-NC 4.0), which LibriMix's own program fetches.
"""

from pathlib import Path

import pandas as pd

from etaflow.atomic import part_path, replace_with_part
from etaflow.corpora.archives import Part, fetch_archive
from etaflow.corpora.base import CorpusError
from etaflow.download import ChecksumError, DownloadError, download, read_checksums, record_checksum
from etaflow.manifest import first_names
from etaflow.separation.mixing import MetadataError, read_metadata, speakers_per_mixture

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
        CorpusError: there is no table of that name, the download fails, or is another than before.
        MetadataError: what came is no metadata.
    """
    if name not in METADATA:
        raise CorpusError(f"no metadata {name!r}; there are {', '.join(METADATA)}")
    place = f"{url}/Libri{name[5]}Mix/{name}.csv"
    part = part_path(output)
    try:
        found = download(place, part, read_checksums(record).get(place))
        read_metadata(part)
        record_checksum(record, place, found)
    except ChecksumError as error:
        part.unlink()
        raise CorpusError(
            f"{name}: {place} is another than when it was first fetched ({record} has its "
            "SHA-256), and was thrown away"
        ) from error
    except DownloadError as error:
        raise CorpusError(f"{name}: {error}") from error
    except MetadataError:
        part.unlink()
        raise
    replace_with_part(output)


def fetch_noise(root: Path, url: str = WHAM) -> None:
    """Fetch WHAM!'s noise, 17 GB and as much again while it is unpacked, into `root/wham_noise`.

    The checksum of the first download is recorded, two folders above `root`; see `fetch_archive`.

    Raises:
        CorpusError: as `fetch_archive`, or the archive has no training noise.
    """
    record = root.absolute().parents[1] / "checksums.json"
    fetch_archive([Part(url, "wham_noise.zip", None)], root.parent, contents=root, record=record)
    if not (root / "wham_noise" / "tr").is_dir():
        raise CorpusError(f"{root}: no wham_noise/tr was in {url}")


def with_manifest(metadata: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """A published table of the recordings of a manifest.

    Args:
        metadata: as `read_metadata` reads it. Its paths of sources are the ends of the manifest's.
        manifest: of the corpus.

    Returns:
        The same rows, with the manifest's paths, and its speakers in `speaker_1_ID`, …

    Raises:
        MetadataError: recordings are not in the manifest, or more than one of it has such a path,
            or a mixture is of one speaker twice.
    """
    table = metadata.copy()
    numbers = range(1, speakers_per_mixture(list(table.columns)) + 1)
    depth = len(Path(table["source_1_path"].iloc[0]).parts)
    ends = manifest["path"].map(lambda path: "/".join(Path(path).parts[-depth:]))
    known = manifest.assign(end=ends).set_index("end")[["path", "speaker_id"]]
    wanted = pd.unique(table[[f"source_{number}_path" for number in numbers]].to_numpy().ravel())
    missing = sorted(set(wanted) - set(known.index))
    if missing:
        raise MetadataError(
            f"{len(missing)} recordings of the metadata are not in the manifest of the corpus: "
            f"{first_names(missing)}; add their subset to the corpus, or see its rejected files"
        )
    known = known.loc[wanted]
    if known.index.has_duplicates:
        twice = known.index[known.index.duplicated()][0]
        raise MetadataError(f"several recordings of the manifest are {twice}")
    for number in numbers:
        found = known.loc[table[f"source_{number}_path"]]
        table[f"source_{number}_path"] = found["path"].to_numpy()
        table[f"speaker_{number}_ID"] = found["speaker_id"].to_numpy()
    alone = table[[f"speaker_{n}_ID" for n in numbers]].nunique(axis=1) < len(numbers)
    if alone.any():
        raise MetadataError(f"{table['mixture_ID'][alone].iloc[0]}: a speaker is in it twice")
    return table

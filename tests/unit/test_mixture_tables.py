"""Tables of mixtures: shards as one, and what is none."""

from pathlib import Path

import pandas as pd
import pytest

from etaflow.manifest import ManifestError, write_table
from etaflow.separation.mixing import MetadataError
from etaflow.separation.tables import (
    mixture_columns,
    num_sources,
    read_mixtures,
    speakers_of_mixtures,
)


def table(*names: str, sources: int = 2, noise: bool = False) -> pd.DataFrame:
    columns = mixture_columns(sources, noise)
    rows = pd.DataFrame({column: [f"{column} of {name}" for name in names] for column in columns})
    speakers = {f"speaker_{n}": [f"00{n}"] * len(names) for n in range(1, sources + 1)}
    return rows.assign(mixture_ID=names, length=800, sample_rate=8_000, **speakers)


def written(folder: Path, *tables: pd.DataFrame) -> list[Path]:
    paths = [folder / f"{index}.tsv" for index in range(len(tables))]
    for part, path in zip(tables, paths, strict=True):
        write_table(part, path)
    return paths


def test_columns_are_those_that_are_written() -> None:
    assert mixture_columns(2, True) == [
        *("mixture_ID", "mixture_path", "source_1_path", "source_2_path", "noise_path"),
        *("speaker_1", "speaker_2", "length", "sample_rate", "mixture_checksum"),
        *("source_1_checksum", "source_2_checksum", "noise_checksum"),
    ]


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_shards_are_one_table_in_order_of_the_mixtures(tmp_path: Path, sources: int) -> None:
    one, other = table("b", "d", sources=sources), table("c", "a", sources=sources)
    other["length"] = [7, 9]
    found = read_mixtures(written(tmp_path, one, other))
    assert list(found["mixture_ID"]) == ["a", "b", "c", "d"]
    assert list(found["length"]) == [9, 800, 7, 800]
    assert list(found.index) == [0, 1, 2, 3]
    assert found["sample_rate"].sum() == 4 * 8_000
    assert found.loc[0, "mixture_path"] == "mixture_path of a"
    assert num_sources(found) == sources
    expected = [[f"00{n}" for n in range(1, sources + 1)]] * 4
    assert speakers_of_mixtures(found).tolist() == expected


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ([table("a"), table("b", noise=True)], "1.tsv: columns .*noise_path.*; .*0.tsv has"),
        ([table("a"), table("b", sources=3)], "1.tsv: columns .*source_3_path"),
        ([table("a"), table("b").assign(sample_rate=16_000)], "at 8000 and 16000 Hz"),
        ([table("a", "b"), table("c", "b", "a")], r"2 mixture\(s\) stand twice .*: a, b"),
        ([table("a").drop(columns=["speaker_2"])], "0.tsv: missing .* speaker_2; mix"),
        ([table("a").drop(columns=["source_1_path"])], "missing .* source_1_path"),
        ([table("a").iloc[:0]], "0.tsv: has no mixtures"),
        ([table("a", "b").assign(length=[5, "5.5"])], "line 3: length '5.5' is no positive"),
        ([table("a").assign(length=0)], "line 2: length '0' is no positive"),
        ([table("a").assign(sample_rate="")], "line 2: sample_rate '' is no positive"),
        ([], "no table of mixtures is given"),
    ],
)
def test_what_is_no_table_of_mixtures(
    tmp_path: Path, tables: list[pd.DataFrame], reason: str
) -> None:
    with pytest.raises(MetadataError, match=reason):
        read_mixtures(written(tmp_path, *tables))


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("")
    with pytest.raises(ManifestError, match=r"x\.tsv"):
        read_mixtures([tmp_path / "x.tsv"])

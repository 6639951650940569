"""Journals: what is there, and what has to be made again."""

import json
from pathlib import Path

import pytest

from etaflow.audio import file_checksum
from etaflow.journal import Journal


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    files = {part: tmp_path / f"{part}.bin" for part in ("one", "two")}
    for part, path in files.items():
        path.write_text(part)
    return files


@pytest.fixture
def path(tmp_path: Path, files: dict[str, Path]) -> Path:
    path = tmp_path / "journal" / "a.jsonl"
    with Journal(path) as journal:
        journal.add("a", "clay", files, length=7)
    return path


def test_an_entry_is_found_with_its_facts(path: Path, files: dict[str, Path]) -> None:
    checksums = {part: file_checksum(file) for part, file in files.items()}
    expected = {"name": "a", "made_of": "clay", "checksums": checksums, "length": 7}
    assert Journal(path).find("a", "clay", files) == expected
    with Journal(path) as journal:
        assert journal.add("b", "wood", {}) == {"name": "b", "made_of": "wood", "checksums": {}}
        assert journal.find("b", "wood", {})
    assert Journal(path).find("a", "clay", files) == expected


def test_what_is_not_there(path: Path, files: dict[str, Path]) -> None:
    journal = Journal(path)
    assert journal.find("b", "clay", files) is None
    assert journal.find("a", "wood", files) is None
    assert journal.find("a", "clay", {"one": files["one"]}) is None
    assert journal.find("a", "clay", files | {"one": files["two"]}) is None
    assert Journal(path.with_name("none.jsonl")).find("a", "clay", files) is None


def test_files_that_were_removed_or_changed(path: Path, files: dict[str, Path]) -> None:
    whole = files["two"].read_text()
    files["two"].unlink()
    assert Journal(path).find("a", "clay", files) is None
    files["two"].write_text("twO")
    assert Journal(path).find("a", "clay", files) is None
    files["two"].write_text(whole)
    assert Journal(path).find("a", "clay", files)


def test_the_last_line_of_a_name_counts(path: Path, files: dict[str, Path]) -> None:
    with Journal(path) as journal:
        journal.add("a", "wood", files)
    assert Journal(path).find("a", "clay", files) is None
    assert Journal(path).find("a", "wood", files)


@pytest.mark.parametrize("end", ['{"name": "a", "made_', "[1]", '{"name": "a"}', "\udcff\0"])
def test_a_line_cut_off_spoils_no_other(path: Path, files: dict[str, Path], end: str) -> None:
    with path.open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(end)
    assert Journal(path).find("a", "clay", files)
    with Journal(path) as journal:
        journal.add("b", "clay", files)
    again = Journal(path)
    assert again.find("a", "clay", files)
    assert again.find("b", "clay", files)


def test_lines_are_there_when_add_returns(path: Path, files: dict[str, Path]) -> None:
    with Journal(path) as journal:
        journal.add("b", "clay", files)
        names = [json.loads(line)["name"] for line in path.read_text().splitlines() if line]
        assert names == ["a", "b"]

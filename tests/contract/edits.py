"""What is done to a completed run: to its config, its files or its command line."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.contract.tiny import NEWCOMER, PROJECT, contract_config
from tests.workflow_tools import changed, planned_jobs, snakemake

Config = dict[str, Any]
SUFFIXES = (".tsv", ".csv", ".json", ".h5", ".safetensors", ".html", ".svg")
LARGE = 1_000_000  # bytes; Snakemake compares larger inputs by time


def as_it_is(config: Config) -> Config:
    return config


@dataclass(frozen=True)
class Change:
    """One way of doing what a row of the contract says.

    Attributes:
        config: makes the changed config from that of the run.
        files: changes files under the folder of the run; None leaves them alone.
        arguments: of Snakemake.
        manifests: whether `snakemake manifests` runs before the rest is planned.
    """

    config: Callable[[Config], Config] = as_it_is
    files: Callable[[Path], None] | None = None
    arguments: tuple[str, ...] = ()
    manifests: bool = False


def key(dotted: str, value: Any) -> Change:
    """One key of the config set."""
    return Change(config=lambda config: changed(config, dotted, value))


def value_of(config: Config, dotted: str) -> Any:
    for part in dotted.split("."):
        config = config[part]
    return config


def swapped(one: str, other: str) -> Change:
    """The values of two keys, each in the place of the other."""

    def swap(config: Config) -> Config:
        values = value_of(config, one), value_of(config, other)
        assert values[0] != values[1]
        return changed(changed(config, one, values[1]), other, values[0])

    return Change(config=swap)


def reordered(value: Any) -> Any:
    """The same mappings with their keys in reverse, at every depth; systems stay in order."""
    if not isinstance(value, dict):
        return value
    again = {name: reordered(value[name]) for name in reversed(value)}
    if "systems" in value:
        again["systems"] = {name: again["systems"][name] for name in value["systems"]}
    return again


def systems_reordered(config: Config) -> Config:
    for section in ("conversion", "verification", "separation"):
        systems = config[section]["systems"]
        config = changed(config, f"{section}.systems", dict(reversed(systems.items())))
    return config


def another(section: str, like: str, name: str = "second", **differences: Any) -> Change:
    """An entry more in a section, like another but for some of its keys."""

    def add(config: Config) -> Config:
        entry = value_of(config, section)[like] | differences
        return changed(config, f"{section}.{name}", entry)

    return Change(config=add)


def together(*changes: Change) -> Change:
    """Several changes, of the config, of files, or both, at once."""

    def config(value: Config) -> Config:
        for change in changes:
            value = change.config(value)
        return value

    def files(folder: Path) -> None:
        for change in changes:
            if change.files is not None:
                change.files(folder)

    untouched = all(change.files is None for change in changes)
    return Change(config=config, files=None if untouched else files)


def appended(*names: str, text: str) -> Change:
    """Text at the end of files."""

    def append(folder: Path) -> None:
        for name in names:
            with (folder / name).open("a", encoding="utf-8") as stream:
                stream.write(text)

    return Change(files=append)


def copied_with_its_date(name: str, text: str) -> Change:
    """Text at the end of a file that is dated before any result, as `rsync -a` leaves it."""

    def copy(folder: Path) -> None:
        file = folder / name
        before = file.stat().st_mtime - 7 * 24 * 3600
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
        os.utime(file, (before, before))

    return Change(files=copy)


def recordings(files: Callable[[Path], None]) -> Change:
    """Recordings changed as the README says: the manifests first, then the rest."""
    return Change(files=files, manifests=True)


def touched(chosen: Callable[[Path], Iterator[Path]]) -> Change:
    """Files with another time, and nothing else."""

    def touch(folder: Path) -> None:
        files = list(chosen(folder))
        assert files
        for file in files:
            file.touch()

    return Change(files=touch)


def code(folder: Path) -> Iterator[Path]:
    for part in PROJECT:
        yield from [folder / part, *(folder / part).rglob("*")]


def small_files(folder: Path) -> Iterator[Path]:
    """All of the run under 1 MB, but for audio."""
    for part in ("results", "resources"):
        for file in (folder / part).rglob("*"):
            if file.suffix in SUFFIXES and file.stat().st_size < LARGE:
                yield file


def converted_audio(folder: Path) -> Iterator[Path]:
    yield from (folder / "results/tiny/conversion/knnvc/wav").rglob("*.wav")


def spoil_converted_audio(folder: Path) -> None:
    first, second, *_ = converted_audio(folder)
    first.write_bytes(b"")
    second.unlink()


def touch_large() -> Change:
    """A touched file of features, of a size that counts as large from here on."""
    shard = "results/tiny/features/speech/wavlm-tiny-l3/0001.h5"
    touch = touched(lambda folder: iter([folder / shard]))
    return Change(files=touch.files, arguments=("--max-checksum-file-size", "300K"))


def change_command(folder: Path) -> None:
    rules = folder / "rules/report.smk"
    text = rules.read_text(encoding="utf-8")
    old = '"python {input.code[0]:q} {input.pcas} --output {output}'
    assert text.count(old) == 1
    rules.write_text(text.replace(old, old.replace("python", "python -u")), encoding="utf-8")


def wav(speaker: str, sentence: int) -> str:
    """The recording of a sentence; a speaker says the first half of them in session a."""
    session = "a" if sentence < 2 else "b"
    return f"speech/{speaker}/{session}/{speaker}-{session}-{sentence:03d}.wav"


def add_utterance(folder: Path) -> None:
    origin = folder / wav("woman01", 1)
    samples, rate = soundfile.read(origin)
    soundfile.write(origin.with_name("woman01-a-009.wav"), 0.5 * samples, rate)


def remove_utterance(folder: Path) -> None:
    (folder / wav("man01", 1)).unlink()


def alter_samples(folder: Path) -> None:
    path = folder / wav("man03", 2)
    samples, rate = soundfile.read(path)
    soundfile.write(path, np.ascontiguousarray(samples[::-1]), rate)


def touch_recordings(folder: Path) -> None:
    for path in (folder / "speech").rglob("*.wav"):
        path.touch()


def correct_transcript(folder: Path) -> None:
    path = (folder / wav("woman02", 3)).with_suffix(".txt")
    path.write_text("alan sees two green chairs", encoding="utf-8")


def add_speaker(folder: Path) -> None:
    shutil.move(folder / "newcomer", folder / "speech" / NEWCOMER)


def git(folder: Path, *arguments: str) -> None:
    names = ("AUTHOR", "COMMITTER")
    who = {f"GIT_{n}_{k}": v for n in names for k, v in (("NAME", "n"), ("EMAIL", "n@localhost"))}
    subprocess.run(["git", *arguments], cwd=folder, env=os.environ | who, check=True)


def check_out_again(folder: Path) -> Path:
    """Put the code of a run aside and clone it back; returns where the run is now."""
    old = folder.with_name("put-aside")
    folder.rename(old)
    git(old, "init", "--quiet")
    git(old, "add", "--force", *PROJECT)
    git(old, "commit", "--quiet", "--message", "the project")
    git(old, "clone", "--quiet", str(old), str(folder))
    (old / "speech").rename(folder / "speech")
    return old


def link_results(folder: Path) -> None:
    old = check_out_again(folder)
    for name in ("results", "resources", ".snakemake"):
        (folder / name).symlink_to(old / name)


def move_results(folder: Path) -> None:
    old = check_out_again(folder)
    for name in ("results", "resources", ".snakemake"):
        (old / name).rename(folder / name)


def forget_records(folder: Path) -> None:
    old = check_out_again(folder)
    for name in ("results", "resources"):
        (old / name).rename(folder / name)


def published(revision: str) -> Callable[[Config], Config]:
    """The features' model as one of the Hugging Face Hub, at a revision."""
    entry = {
        "source": "huggingface",
        "architecture": "wavlm",
        "repo": "OWNER/NAME",
        "revision": revision,
    }
    return lambda config: changed(config, "models.wavlm-tiny", entry)


def another_revision() -> Change:
    """A run that has a model of the Hub, as far as Snakemake knows, and another revision of it."""
    before, after = (published(digit * 40) for digit in "01")

    def pretend(folder: Path) -> None:
        config = before(contract_config())
        snakemake(folder, config, "--touch", root=folder)
        assert planned_jobs(folder, config, root=folder) == {}

    return Change(config=after, files=pretend)

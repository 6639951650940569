"""A study of LibriSpeech-960 and VoxCeleb2 with manifests of their sizes, for planning only."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from etaflow.manifest import COLUMNS, shard_names, shard_of
from tests.workflow_tools import ROOT, load_config

LIBRISPEECH, VOXCELEB2 = (281_241, 2338), (1_092_009, 5994)  # utterances, speakers
SHARDS = {"librispeech-960": 64, "voxceleb2": 256}

__all__ = ["LIBRISPEECH", "ROOT", "SHARDS", "VOXCELEB2", "scale_config", "write_scale"]


def scale_config() -> dict[str, Any]:
    """`librispeech.yaml`, and a training on VoxCeleb2 that is scored on drawn trials of it."""
    config = load_config("librispeech")
    fusion = load_config("wavlm-rawnet")
    config["run"] = "scale"
    config["corpora"]["voxceleb2"] = {
        "kind": "folder",
        "root": ".",
        "pattern": "(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>[^/]+)",
        "text_suffix": ".txt",
        "seed": 0,
        "split": {"by": "speaker", "test_fraction": 0.1},
        "shards": SHARDS["voxceleb2"],
    }
    config["encoders"] = {"fusion": fusion["encoders"]["fusion"] | {"corpus": "voxceleb2"}}
    drawn = {"corpus": "voxceleb2", "split": "test", "targets": 20_000, "nontargets": 20_000}
    drawn |= {"across_sessions": True, "seed": 0}
    config["verification"] = {
        "trials": {"drawn": drawn},
        "systems": {"fusion": {"encoder": "fusion"}, "ecapa": {"encoder": "ecapa"}},
        "evaluate": ["drawn"],
        "bootstrap_rounds": 1000,
        "seed": 0,
    }
    return config


def manifest_lines(utterances: int, speakers: int, shards: int) -> dict[str, list[str]]:
    """Lines of manifests, by shard: as many utterances of as many speakers, of no recordings."""
    generator = np.random.default_rng(0)
    others = generator.integers(0, speakers, utterances - speakers)
    counts = np.bincount(others, minlength=speakers) + 1
    samples = iter(generator.integers(20_000, 560_000, utterances).tolist())
    lines: dict[str, list[str]] = {name: [] for name in shard_names(shards)}
    for speaker, count in enumerate(counts.tolist()):
        name, split = f"id{speaker:05d}", "train" if speaker % 10 else "test"
        shard = shard_of(name, shards)
        lines[shard] += [
            f"{name}-{u:05d}\t{name}\t{u // 8}\t{split}\taudio/{name}/{u:05d}.flac\t"
            f"{next(samples)}\t16000\t\t{shard}\t0123456789abcdef\n"
            for u in range(count)
        ]
    return lines


def write_corpus(folder: Path, corpus: str, shards: dict[str, list[str]]) -> None:
    """The four kinds of manifests of a corpus."""
    place = folder / "results" / "scale" / "manifests"
    (place / corpus).mkdir(parents=True)
    header = "\t".join(COLUMNS) + "\n"
    for name, lines in shards.items():
        (place / corpus / f"{name}.tsv").write_text(header + "".join(lines))
    whole = place / f"{corpus}.tsv"
    whole.write_text(header + "".join(line for lines in shards.values() for line in lines))
    (place / f"{corpus}.recordings.tsv").hardlink_to(whole)  # there are no texts to leave out
    (place / f"{corpus}.rejected.tsv").write_text("path\treason\n")


def write_scale(
    folder: Path,
    config: dict[str, Any],
    librispeech: tuple[int, int] = LIBRISPEECH,
    voxceleb2: tuple[int, int] = VOXCELEB2,
) -> Path:
    """Write the manifests and the config under `folder`; returns the config's file."""
    sizes = {"librispeech-960": librispeech, "voxceleb2": voxceleb2}
    sizes |= {"librispeech-vocoder": (31_242, 291), "librispeech-test": (2620, 40)}
    for corpus, entry in config["corpora"].items():
        if corpus == "voxceleb2":
            entry["root"] = str(folder / "audio")
            (folder / "audio").mkdir()
        else:
            entry["root"] = str(folder)
        write_corpus(folder, corpus, manifest_lines(*sizes[corpus], entry["shards"]))
    file = folder / "scale.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file

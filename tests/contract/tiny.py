"""The completed run that the contract is tested on: every stage, on as little as will do."""

import shutil
from pathlib import Path
from typing import Any

from etaflow.corpora import fetch
from etaflow.manifest import read_table
from tests.workflow_tools import ROOT, small_config, untrained_config

SPEAKERS, NEWCOMER = 7, "woman04"
SENTENCES = 4
# What a run needs of the project, and nothing that changes while tests run.
PROJECT = ("Snakefile", "rules", "scripts", "etaflow", "config", "profiles", "envs")


def contract_config() -> dict[str, Any]:
    """Conversion on a folder of recordings; verification and separation on a corpus of `mini`."""
    config, small = untrained_config(), small_config()
    config |= {key: small[key] for key in ("probe", "vocoder", "conversion")}
    config |= {"run": "tiny", "sweep": {"eta": "speech", "layer": [1, 3]}}
    config["corpora"] = {
        "speech": {
            "kind": "folder",
            "root": "speech",
            "pattern": r"(?P<speaker>[^/]+)/(?P<session>[^/]+)/(?P<utterance>[^/]+)",
            "text_suffix": ".txt",
            "seed": 0,
            "split": {"by": "speaker", "test_fraction": 0.34},
            "shards": 2,
        },
        "voices": {
            "kind": "mini",
            "speakers": 8,
            "sentences": 4,
            "seed": 1,
            "split": {"by": "speaker", "test_fraction": 0.4},
            "shards": 1,
        },
    }
    config["ssl"]["wavlm-tiny"]["together"] = [1, 3]
    config["eta"] = {"speech": config["eta"]["mini"] | {"corpus": "speech", "pca": 3}}
    config["probe"] |= {"corpus": "speech"}
    config["vocoder"]["hifigan-tiny"] |= {"corpus": "speech", "steps": 4, "adversarial_from": 2}
    config["vocoder"]["hifigan-tiny"] |= {"validate_every": 2}
    config["conversion"] |= {"corpus": "speech", "eta": "speech"}
    config["conversion"]["pairs"] = {"sources_per_speaker": 1}
    kept = ("original", "knnvc", "knnvc-eta")
    systems = config["conversion"]["systems"]
    config["conversion"]["systems"] = {name: systems[name] for name in kept}
    del config["conversion"]["references"]
    config |= _verification(config) | _separation(config)
    config["bundle"] |= {"eta": "speech"}
    return config


def _verification(config: dict[str, Any]) -> dict[str, Any]:
    """One encoder trained here beside one that is not, compared on two lists of trials."""
    ecapa = config["encoders"]["ecapa-ge2e"] | {
        "corpus": "voices",
        "network": {"kind": "ecapa", "channels": 8, "dim": 16},
        "speakers": 3,
        "utterances": 2,
        "crop_seconds": 0.5,
        "steps": 2,
        "validate_every": 2,
        "validation": {"speakers": 2, "nontargets": 10, "max_seconds": 1.0},
    }
    trials = {"corpus": "voices", "targets": None, "nontargets": 20, "across_sessions": True}
    return {
        "encoders": {"ecapa": ecapa},
        "verification": {
            "trials": {
                "test": trials | {"split": "test", "seed": 0},
                "train": trials | {"split": "train", "seed": 0},
            },
            "systems": {
                "resemblyzer": {"encoder": "resemblyzer"},
                "ecapa": {"encoder": "ecapa"},
                "calibrated": {
                    "encoder": "resemblyzer",
                    "calibration": {"trials": "train", "quality": []},
                },
                "both": {"average": ["resemblyzer", "ecapa"]},
            },
            "evaluate": ["test"],
            "bootstrap_rounds": 100,
            "seed": 0,
            "verifier": {"system": "calibrated", "trials": "test"},
        },
    }


def _separation(config: dict[str, Any]) -> dict[str, Any]:
    """One set of mixtures, one separator trained on it for a moment."""
    separator = config["separators"]["sepformer"] | {
        "mixtures": "pairs",
        "steps": 2,
        "validate_every": 2,
        "crop_seconds": 0.5,
    }
    separator["network"] = separator["network"] | {"channels": 32, "kernel": 64}
    mixtures = config["mixtures"]["mini-clean"] | {
        "corpus": "voices",
        "counts": {"train": 4, "validation": 2, "test": 3},
        "validation_speakers": 2,
        "shards": 1,
    }
    return {
        "mixtures": {"pairs": mixtures},
        "separators": {"sepformer": separator},
        "separation": {
            "mixtures": ["pairs"],
            "systems": {"sepformer": {"separator": "sepformer"}},
            "bootstrap_rounds": 100,
            "listening_mixtures": 1,
            "seed": 0,
        },
    }


def copy_project(folder: Path) -> None:
    """The code as it stands, files that are not yet committed too."""
    ignore = shutil.ignore_patterns("__pycache__")
    for part in PROJECT:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / part, folder / part)


def record_speakers(folder: Path, kept_aside: Path) -> None:
    """A folder of recordings with transcripts; those of the last speaker lie elsewhere.

    Shard 0000 holds man01 and man03, and will hold the last one; 0001 holds the others.
    """
    made = folder.with_name("recordings")
    entry = {"kind": "mini", "speakers": SPEAKERS, "sentences": SENTENCES, "seed": 0}
    fetch(entry, made)
    table = read_table(made / "recordings.tsv")
    for row in table.itertuples():
        (made / row.path).with_suffix(".txt").write_text(row.text, encoding="utf-8")
    (made / "recordings.tsv").unlink()
    shutil.move(made / NEWCOMER, kept_aside)
    made.rename(folder)


def prepare(folder: Path) -> None:
    """A checkout with the recordings in it, in which nothing has run yet."""
    copy_project(folder)
    record_speakers(folder / "speech", folder / "newcomer")

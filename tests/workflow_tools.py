"""Running the real workflow in a folder of its own, for tests."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def load_config(name: str = "config") -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))


def conversion_config() -> dict[str, Any]:
    """The embedded default without what is on speaker verification and on separation."""
    config = load_config()
    for section in ("encoders", "verification", "mixtures", "separators", "separation"):
        del config[section]
    del config["corpora"]["mini-voices"]
    return config


def speakers_config() -> dict[str, Any]:
    """What the embedded default has on speaker verification, cut to what runs in two minutes."""
    config = load_config()
    kept = ("seed", "corpora", "models", "encoders", "verification")
    config = {"run": "speakers"} | {key: config[key] for key in kept}
    del config["corpora"]["mini"]
    config["corpora"]["mini-voices"] |= {"speakers": 16, "sentences": 4}
    for name, entry in config["encoders"].items():
        entry["network"] |= {"channels": 8, "dim": 16}
        entry |= {"speakers": 4, "utterances": 2, "crop_seconds": 0.5, "validate_every": 2}
        entry |= {"steps": 0 if name.endswith("untrained") else 4}
        entry["validation"] = {"speakers": 3, "nontargets": 20, "max_seconds": 1.0}
    config["encoders"]["wavlm-rawnet"]["keep"] = "last"
    verification = config["verification"]
    for entry in verification["trials"].values():
        entry["nontargets"] = 40
    verification["systems"]["resemblyzer-norm"]["as_norm"]["topk"] = 4
    verification["systems"]["resemblyzer-short"] = {"encoder": "resemblyzer", "max_seconds": 1.5}
    verification["bootstrap_rounds"] = 100
    return config


def separation_config() -> dict[str, Any]:
    """What the embedded default has on separation, with as many steps."""
    config = load_config()
    kept = ("seed", "corpora", "mixtures", "separators", "separation")
    config = {"run": "separation", "models": {}} | {key: config[key] for key in kept}
    del config["corpora"]["mini"]
    return config


def small_separation_config() -> dict[str, Any]:
    """The same, cut to what runs in a minute."""
    config = separation_config()
    config["corpora"]["mini-voices"] |= {"speakers": 12, "sentences": 4}
    for entry in config["mixtures"].values():
        entry |= {"counts": {"train": 6, "validation": 2, "test": 4}, "validation_speakers": 2}
    for entry in config["separators"].values():
        entry |= {"steps": 4, "validate_every": 2, "crop_seconds": 0.5}
        entry["checkpoints"] = {"every": 2, "keep": 2}
        if "channels" in entry["network"]:
            entry["network"] |= {"channels": 32, "kernel": 64}
    config["separation"] |= {"bootstrap_rounds": 100, "listening_mixtures": 1}
    return config


def small_config() -> dict[str, Any]:
    """The embedded default without verification, cut to what runs in two minutes."""
    config = conversion_config()
    config["run"] = "small"
    corpus = config["corpora"]["mini"]
    corpus |= {"speakers": 6, "sentences": 6, "shards": 2}
    corpus["split"]["test_fraction"] = 0.34
    config["ssl"]["wavlm-tiny"]["together"] = [1, 3]
    config["eta"]["mini"]["pca"] = 4
    config["sweep"] = {"eta": "mini", "layer": [1, 3], "frames": [5, None]}
    config["probe"]["folds"] = 2
    vocoder = config["vocoder"]["hifigan-tiny"]
    vocoder |= {
        "steps": 12,
        "adversarial_from": 6,
        "validate_every": 4,
        "validation_utterances": 2,
        "batch_size": 4,
    }
    vocoder["generator"] |= {"hidden_dim": 32, "upsample_channels": 32}
    config["conversion"] |= {
        "references": {"systems": ["knnvc"], "seconds": [5, None]},
        "pairs": {"sources_per_speaker": 2},
        "bootstrap_rounds": 100,
        "listening_pairs": 2,
    }
    return config


def changed(config: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of the config with one key set, or removed where the value is `...`."""
    config = copy.deepcopy(config)
    *path, last = dotted.split(".")
    place = config
    for key in path:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


def snakemake(
    folder: Path, config: dict[str, Any], *arguments: str, root: Path = ROOT, ok: bool = True
) -> str:
    """Run Snakemake on the project's Snakefile in `folder`; returns what it printed."""
    (folder / "test.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        [
            "snakemake",
            "--snakefile",
            str(root / "Snakefile"),
            "--configfile",
            "test.yaml",
            "--workflow-profile",
            str(root / "profiles" / "default"),
            "--cores",
            "2",
            *arguments,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output
    return output


def planned(folder: Path, config: dict[str, Any], root: Path = ROOT) -> dict[str, int]:
    """The rules that Snakemake would run, and how many jobs of each."""
    output = snakemake(folder, config, "--dry-run", root=root)
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:")[-1].split("total")[0]
    jobs = dict(re.findall(r"^(\S+)\s+(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "all"}

"""Running the real workflow in a folder of its own, for tests."""

import copy
import hashlib
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


def untrained_config() -> dict[str, Any]:
    """The embedded default with a WavLM of random weights, and a vocoder trained from nothing."""
    text = (ROOT / "tests" / "untrained.yaml").read_text(encoding="utf-8")
    config = load_config() | yaml.safe_load(text)
    for section in ("conversion", "bundle"):
        config[section]["vocoder"] = "hifigan-tiny"
    config["corpora"]["mini-voices"]["seed"] = 1
    wavlm = {"model": "wavlm-tiny", "normalize": False, "layer": 3}
    for name in ("wavlm-rawnet", "wavlm-rawnet-untrained"):
        config["encoders"][name]["network"] = config["encoders"][name]["network"] | wavlm
    return config


def conversion_config() -> dict[str, Any]:
    """The same without what is on speaker verification and on separation."""
    config = untrained_config()
    for section in ("bundle", "encoders", "verification", "mixtures", "separators", "separation"):
        del config[section]
    del config["corpora"]["mini-voices"]
    config["probe"]["corpus"] = "mini"
    return config


def speakers_config() -> dict[str, Any]:
    """What the embedded default has on speaker verification, cut to what runs in two minutes."""
    config = untrained_config()
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
    """What the embedded default has on separation, in more steps, so that tuning tells."""
    config = untrained_config()
    kept = ("seed", "corpora", "mixtures", "separators", "separation")
    config = {"run": "separation", "models": {}} | {key: config[key] for key in kept}
    del config["corpora"]["mini"]
    for name, steps in (("sepformer", 600), ("sepformer-tuned", 200)):
        config["separators"][name]["steps"] = steps
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
    """The same as `conversion_config`, cut to what runs in two minutes."""
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


def serving_config() -> dict[str, Any]:
    """What it takes to make the embedded default's bundle, cut to what runs in two minutes."""
    config, speakers, separation = small_config(), speakers_config(), small_separation_config()
    del config["probe"], config["sweep"], config["conversion"]["references"]
    config["run"] = "serving"
    config["conversion"]["systems"] = {"knnvc": {"method": "knn"}}
    config["corpora"]["mini-voices"] = separation["corpora"]["mini-voices"]
    config["verification"] = speakers["verification"]
    kept = ("resemblyzer", "resemblyzer-calibrated")
    config["verification"]["systems"] = {
        name: speakers["verification"]["systems"][name] for name in kept
    }
    config["mixtures"] = {"mini-clean": separation["mixtures"]["mini-clean"]}
    config["separators"] = {"sepformer": separation["separators"]["sepformer"]}
    config["separation"] = separation["separation"] | {
        "mixtures": ["mini-clean"],
        "systems": {"sepformer": {"separator": "sepformer"}},
    }
    config["bundle"] = untrained_config()["bundle"]
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


def command_line(
    folder: Path,
    config: dict[str, Any],
    *arguments: str,
    root: Path = ROOT,
    profile: Path | None = None,
    cores: int = 2,
) -> list[str]:
    """Snakemake's, to be run in `folder`, where the config is written."""
    text = yaml.safe_dump(config, sort_keys=False)
    # A file of its own, so that several may plan in one folder at a time.
    file = folder / f"test-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.yaml"
    file.write_text(text, encoding="utf-8")
    return [
        *(str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(root / "Snakefile")),
        *("--configfile", file.name, "--cores", str(cores)),
        *("--workflow-profile", str(profile or root / "profiles" / "default"), *arguments),
    ]


def environment() -> dict[str, str]:
    """The variables of a process in which `python` is that of the tests."""
    return dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def snakemake(
    folder: Path,
    config: dict[str, Any],
    *arguments: str,
    root: Path = ROOT,
    profile: Path | None = None,
    cores: int = 2,
    ok: bool = True,
) -> str:
    """Run Snakemake on the project's Snakefile in `folder`; returns what it printed."""
    done = subprocess.run(
        command_line(folder, config, *arguments, root=root, profile=profile, cores=cores),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output
    return output


def planned(
    folder: Path, config: dict[str, Any], *arguments: str, root: Path = ROOT
) -> dict[str, int]:
    """The rules that Snakemake would run, and how many jobs of each."""
    output = snakemake(folder, config, "--dry-run", *arguments, root=root)
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:")[-1].split("total")[0]
    jobs = dict(re.findall(r"^(\S+)\s+(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "all"}


def jobs_in(output: str) -> dict[str, list[str]]:
    """What Snakemake says that it runs, or would: of each rule its jobs, in order of their names.

    The name of a job is the values of its wildcards that are not empty, `mini/wavlm-tiny/3/0001`;
    without wildcards it is `-`.
    """
    jobs: dict[str, list[str]] = {}
    blocks = re.split(r"^(?:local)?rule (\S+):$", output, flags=re.MULTILINE)[1:]
    for rule, block in zip(blocks[::2], blocks[1::2], strict=True):
        found = re.search(r"^    wildcards: (.+)$", block, flags=re.MULTILINE)
        pairs = found[1].split(", ") if found else []
        values = [pair.partition("=")[2] for pair in pairs]
        jobs.setdefault(rule, []).append("/".join(filter(None, values)) or "-")
    return {rule: sorted(names) for rule, names in jobs.items() if rule != "all"}


def planned_jobs(
    folder: Path, config: dict[str, Any], *arguments: str, root: Path = ROOT
) -> dict[str, list[str]]:
    """The jobs that Snakemake would run, as `jobs_in` names them."""
    return jobs_in(snakemake(folder, config, "--dry-run", *arguments, root=root))

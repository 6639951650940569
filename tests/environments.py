"""The conda environments of `--sdm conda`; `python -m tests.environments` writes them.

A family is what the rules of one environment run. Its packages are those that the scripts of these
rules import, at any remove, and what these need in turn, at the versions of envs/requirements.txt.
Snakemake runs rules again whose environment changed: with one environment for all, a new version
of what draws figures would train every model again.
"""

import ast
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etaflow.provenance import source_files
from tests.workflow_tools import ROOT

ENVS = ROOT / "envs"
PYTHON = "3.11"
# Accelerate imports the tracker that it is told, by its name.
BY_NAME = {"accelerate": {"tensorboard"}}
# Trackers that are only used where a user installs them.
OPTIONAL = {"wandb"}
# Resemblyzer asks for webrtcvad, which needs a compiler, and for typing, which Python has.
REPLACED = {"webrtcvad": ["webrtcvad-wheels"], "typing": []}
WITHOUT_DEPENDENCIES = {"resemblyzer"}
# Not of the lock: every virtual environment has its own.
FROM_CONDA = {"setuptools": "setuptools<82"}

HEADER = "# Written by `python -m tests.environments` from envs/requirements.txt.\n"
DEPLOY = """#!/usr/bin/env bash
# Written by `python -m tests.environments`. Snakemake runs it in the new environment.
set -euo pipefail
if ! grep -qs '^name = "etaflow"' pyproject.toml; then
  echo "etaflow is installed from its folder: run snakemake --sdm conda there" >&2
  exit 1
fi
"""


@cache
def lock() -> dict[str, str]:
    """The lines of the lock by the canonical name of their package."""
    lines = (ENVS / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(Requirement(line).name): line
        for line in lines
        if line and not line.startswith("#")
    }


def families() -> dict[str, list[str]]:
    """The scripts of each environment, as the rules say."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for rule in re.split(r"^ *rule(?= \w+:|:)", file.read_text(encoding="utf-8"), flags=re.M)[
            1:
        ]:
            scripts = re.findall(r'\bcode=source\("(\w+)"\)', rule)
            environments = re.findall(r'^\s+conda:\s+"\.\./envs/(\w+)\.yaml"$', rule, flags=re.M)
            if len(scripts) > 1 or len(scripts) != len(environments):
                raise ValueError(f"{file.name}: a rule has {scripts} and {environments}")
            for family, script in zip(environments, scripts, strict=True):
                found.setdefault(family, set()).add(script)
    return {family: sorted(scripts) for family, scripts in sorted(found.items())}


@cache
def imports(file: Path) -> frozenset[str]:
    """The top-level packages, not of Python, that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return frozenset(names - sys.stdlib_module_names - {"etaflow"} - OPTIONAL)


def imported(script: str) -> set[str]:
    """The same of a script and all modules of etaflow that it imports, at any remove."""
    files = source_files(ROOT / "scripts" / f"{script}.py", ROOT / "etaflow")
    return set().union(*map(imports, files))


@cache
def _owners() -> Mapping[str, list[str]]:
    """The installed packages that have a top-level package."""
    return packages_distributions()


@cache
def _requirements(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """What an installed package requires here, with the extras that it asks of each."""
    found = []
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        chosen = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, chosen)):
            wanted = canonicalize_name(requirement.name)
            for each in REPLACED.get(wanted, [wanted]):
                found.append((each, frozenset(requirement.extras)))
    return found


def packages(scripts: list[str]) -> set[str]:
    """What an environment for these scripts holds: canonical names of packages of the lock.

    Raises:
        ValueError: something is needed that the lock has not.
    """
    modules = set().union(*map(imported, scripts))
    owners = _owners()
    needed: set[str] = set()
    for module in modules:
        if module not in owners:
            raise ValueError(f"{module} is imported and no installed package has it")
        needed |= {canonicalize_name(name) for name in owners[module]}
        needed |= BY_NAME.get(module, set())
    waiting = [(name, frozenset[str]()) for name in needed]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        if name in FROM_CONDA:
            continue
        if name not in lock():
            raise ValueError(f"{name} is needed and envs/requirements.txt has it not")
        for each in _requirements(name, extras):
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return {name for name, _ in seen} - FROM_CONDA.keys()


def contents(family: str, scripts: list[str]) -> dict[str, str]:
    """The files of an environment, by name."""
    names = packages(scripts)
    pins = [line for name, line in lock().items() if name in names - WITHOUT_DEPENDENCIES]
    alone = [lock()[name] for name in sorted(names & WITHOUT_DEPENDENCIES)]
    described = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", *FROM_CONDA.values(), {"pip": pins}],
    }
    text = yaml.safe_dump(described, sort_keys=False, width=1000)
    deploy = DEPLOY + "".join(
        f"pip install --no-deps {line}\n" for line in [*alone, "--editable ."]
    )
    return {f"{family}.yaml": HEADER + text, f"{family}.post-deploy.sh": deploy}


def environments() -> dict[str, str]:
    """All files that are written to envs/, by name."""
    return {
        name: text
        for family, scripts in families().items()
        for name, text in contents(family, scripts).items()
    }


if __name__ == "__main__":
    for name, text in environments().items():
        (ENVS / name).write_text(text, encoding="utf-8")

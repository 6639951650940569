"""What Snakemake plans for a row of the contract, and what it runs."""

import shutil
from pathlib import Path

from tests.contract.edits import Change
from tests.contract.tiny import contract_config
from tests.workflow_tools import jobs_in, planned_jobs, snakemake

Jobs = dict[str, list[str]]


def make(change: Change, run: Path, scratch: Path) -> Path:
    """Do a change to the files of a completed run, in a copy; returns where it is done.

    Where no file changes, that is the run itself.
    """
    if change.files is None and not change.manifests:
        return run
    folder = scratch / "run"
    shutil.copytree(run, folder, symlinks=True)
    if change.files is not None:
        change.files(folder)
    if change.manifests:
        config = change.config(contract_config())
        output = snakemake(folder, config, "--", "manifests", root=folder)
        made = set(jobs_in(output)) - {"manifests"}
        assert made == {"build_manifest_speech"}
    return folder


def plan(change: Change, run: Path, scratch: Path) -> Jobs:
    """What is left to do after a change; `scratch` is removed."""
    folder = make(change, run, scratch)
    config = change.config(contract_config())
    jobs = planned_jobs(folder, config, *change.arguments, root=folder)
    shutil.rmtree(scratch)
    return jobs


def run_really(change: Change, target: str, run: Path, scratch: Path) -> tuple[Jobs, Jobs, Jobs]:
    """What is planned for a target after a change, what then runs, and what would run next."""
    shutil.copytree(run, scratch / "copy", symlinks=True)
    folder = make(change, scratch / "copy", scratch)
    config = change.config(contract_config())
    before = planned_jobs(folder, config, "--", target, root=folder)
    output = snakemake(folder, config, "--", target, root=folder)
    done = {rule: jobs for rule, jobs in jobs_in(output).items() if rule != target}
    before.pop(target, None)
    return before, done, planned_jobs(folder, config, "--", target, root=folder)

"""The page of the docs that is made from the contract."""

from itertools import groupby

from tests.contract.consequences import EVERYTHING
from tests.contract.rows import ROWS, Row
from tests.workflow_tools import ROOT

PAGE = ROOT / "docs" / "reruns.md"
TOTAL = sum(len(jobs.split()) for jobs in EVERYTHING.values())
INTRODUCTION = f"""\
# What runs again

After a change, `snakemake` runs what depends on the change, and leaves the rest as it is. To see
what that would be, and why, before anything runs:

    snakemake -n --configfile …

An output depends on four things: the part of the config that its rule uses; the command of the
rule; its script, with the modules of `etaflow` that the script imports, at any remove; and its
input files. A rule also runs when one of its inputs is about to be made again, even if that will
come out the same: Snakemake plans before it knows.

Manifests are the way around that. After changing recordings, run

    snakemake manifests
    snakemake

The first builds the manifests, one for each shard of each corpus. The second finds that most of
these small files are what they were, and leaves their shards alone.

The tables below are a contract. Each row is done to a small completed run of {TOTAL} jobs by the
tests, which compare what Snakemake then plans with the row, job by job. That run has two corpora.
From `speech`, a folder of recordings in the shards 0000 and 0001, it makes Eta models (of layer
3, and of layer 1 for a sweep), a vocoder and three conversion systems; from `voices`, of
synthesised speech, a speaker encoder, four verification systems, mixtures and a separator. `×2`
after a rule means two jobs of it; where there are others that do not run, those that do are named
in brackets. In rows on recordings, `snakemake manifests` has run already, unless they say
otherwise.

This page is written by `python -m tests.contract` from `tests/contract/rows.py`.
"""


def told_apart(jobs: list[str], known: list[str]) -> list[str]:
    """Names of jobs of a rule without what all that are known have in common."""
    columns = list(zip(*(job.split("/") for job in [*known, *jobs]), strict=True))
    varying = [len(set(column)) > 1 for column in columns]

    def name(job: str) -> str:
        parts = [part for part, kept in zip(job.split("/"), varying, strict=True) if kept]
        shard = f"shard {parts.pop()}" if parts[-1].isdigit() else ""
        return " ".join(filter(None, ["/".join(parts), shard]))

    return [name(job) for job in jobs]


def rule_in_words(rule: str, jobs: str) -> str:
    """A rule with its number of jobs, and which they are where there are others."""
    names, known = sorted(jobs.split()), sorted(EVERYTHING.get(rule, "").split())
    words = f"`{rule}`" + (f" ×{len(names)}" if len(names) > 1 else "")
    return words if names == known else f"{words} ({', '.join(told_apart(names, known))})"


def line(row: Row) -> str:
    """A row of the table: what is done, what follows in words, and its jobs."""
    rules = sorted(row.again, key=list(EVERYTHING).index)
    listed = ", ".join(rule_in_words(rule, row.again[rule]) for rule in rules)
    count = sum(len(jobs.split()) for jobs in row.again.values())
    return f"| {row.what} | {row.so} | {f'{count}: {listed}' if count else '0'} |"


def page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION]
    for group, rows in groupby(ROWS, key=lambda row: row.group):
        head = "| what changes | what runs again | jobs |\n| --- | --- | --- |"
        parts.append("\n".join([f"\n## {group}\n", head, *map(line, rows), ""]))
    return "".join(parts)

"""`kill -9` at random moments in every long rule, and the result of an undisturbed run."""

import random
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.workflow import (
    TARGETS,
    Running,
    end,
    is_at_work,
    results,
    seconds_taken,
    tiny_config,
)
from tests.workflow_tools import planned, snakemake

pytestmark = pytest.mark.slow

LONG_RULES = (
    "dump_features",
    "embed_speakers",
    "prematch",
    "train_vocoder",
    "convert",
    "transcribe",
    "mix_speakers",
    "train_speaker_encoder",
    "train_separator",
    "separate",
)
MOST_ROUNDS = 40


def plan_of_kills(chance: random.Random) -> dict[str, list[str]]:
    """Of each rule a kill of a job, and one of Snakemake alone or of everything at once."""
    plan = {}
    for number, rule in enumerate(LONG_RULES):
        kills = ["job", ("snakemake", "session")[number % 2]]
        chance.shuffle(kills)
        plan[rule] = kills
    return plan


def kill(running: Running, job: psutil.Process, what: str) -> None:
    if what == "job":
        end([*job.children(recursive=True), job])
    elif what == "snakemake":
        running.process.kill()
        running.process.wait()
        assert is_at_work(job)  # an orphan, to be ended by hand
        running.end_all()
    else:
        for process in running.members():
            process.send_signal(signal.SIGKILL)


def test_twenty_kills_lose_nothing(undisturbed: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    plan = plan_of_kills(chance)
    # What is fetched is not what is tested here.
    shutil.copytree(undisturbed / "resources", tmp_path / "resources")
    hits: list[tuple[str, str]] = []
    missed, locked = 0, False
    forced: set[str] = set()
    for _ in range(MOST_ROUNDS):
        if locked:
            snakemake(tmp_path, tiny_config(), "--unlock")
        left = [rule for rule in LONG_RULES if plan[rule]]
        if all((tmp_path / f"results/tiny/{name}/metrics.tsv").exists() for name in TARGETS):
            # All that was not hit in time runs once more, until nothing disturbs it.
            forced |= set(left)
        again = ("--forcerun", *sorted(forced)) if forced else ()
        hit = None
        with Running(tmp_path, tiny_config(), *TARGETS, *again) as running:
            while not hit and (found := running.wait_for(left)):
                rule, job = found
                with suppress(psutil.TimeoutExpired):
                    job.wait(chance.uniform(0.1, 0.8) * seconds_taken(undisturbed, rule))
                if is_at_work(job):
                    hit = plan[rule].pop()
                    kill(running, job, hit)
                    hits.append((rule, hit))
                else:
                    missed += 1
            status, printed = running.finish()
        locked = hit in ("snakemake", "session")
        if hit == "job" and status == 0:
            # It had ended between the look and the kill: what it made is whole, so try again.
            assert "Error in rule" not in printed
            plan[rule].append(hits.pop()[1])
            missed += 1
        elif hit == "job":
            assert status == 1
            assert f"Error in rule {rule}" in printed
        elif not hit:
            assert status == 0, printed
            forced.clear()
            if not left:
                break
    print(f"{len(hits)} kills hit, {missed} came too late: {hits}")
    assert len(hits) == 20
    assert results(tmp_path) == results(undisturbed)
    assert planned(tmp_path, tiny_config(), *TARGETS) == {}

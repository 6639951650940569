"""Draw trials from a corpus, or read a list of them."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from etaflow.atomic import write_json
from etaflow.manifest import first_names, read_manifest, write_table
from etaflow.script import new_app
from etaflow.trials import (
    TrialsError,
    generate_trials,
    read_trials,
    repeated_trials,
    speakers_of,
    trials_of_one_file,
)

app = new_app()
_log = logging.getLogger("make_trials")


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: targets, nontargets, split, across_sessions, seed; with --list: missing"
        ),
    ],
    manifest: Annotated[Path, typer.Option(help="Manifest of the corpus")],
    output: Annotated[Path, typer.Option(help="TSV to write: enrolment test target")],
    summary: Annotated[Path, typer.Option(help="JSON to write: counts, and what was left out")],
    listed: Annotated[Path | None, typer.Option("--list", help="List of trials to read")] = None,
) -> None:
    """Draw trials from a corpus, or read a list of them."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, table = json.loads(config), read_manifest(manifest)
    missing: list[str] = []
    left_out = 0
    if listed is None:
        everything = settings["split"] == "all"
        chosen = table if everything else table[table["split"] == settings["split"]]
        if chosen.empty:
            raise TrialsError(f"the corpus has no utterance in the split {settings['split']!r}")
        trials = generate_trials(
            chosen,
            settings["targets"],
            settings["nontargets"],
            settings["seed"],
            settings["across_sessions"],
        )
    else:
        trials, missing, left_out = read_trials(listed, table, settings["missing"])
    targets = int(trials["target"].sum())
    counts = {
        "targets": targets,
        "nontargets": len(trials) - targets,
        "utterances": len({*trials["enrolment"], *trials["test"]}),
        "speakers": len({*speakers_of(trials, table).ravel()}),
    }
    _log.info(", ".join(f"{count} {name}" for name, count in counts.items()))
    if missing:
        _log.warning(
            "%d trial(s) left out: %d recording(s) are not in the manifest: %s",
            left_out,
            len(missing),
            first_names(missing),
        )
    doubtful = {
        "repeated": repeated_trials(trials),
        "of_one_file": trials_of_one_file(trials, table),
    }
    if doubtful["repeated"]:
        _log.warning(
            "%d trial(s) stand there before, and count once more each", doubtful["repeated"]
        )
    if doubtful["of_one_file"]:
        _log.warning(
            "%d trial(s) compare a file with itself or a copy of it: any system gets them right",
            doubtful["of_one_file"],
        )
    excluded = {"trials": left_out, "recordings": missing}
    source = {"list": listed.name} if listed else settings
    write_json(summary, {**counts, **doubtful, "excluded": excluded, "source": source})
    write_table(trials, output)


if __name__ == "__main__":
    app()

"""Planning LibriSpeech-960 (281,241 utterances, 64 shards) with the manifests already there."""

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from etaflow.manifest import COLUMNS, shard_of, write_manifest

ROOT = Path(__file__).parents[1]
UTTERANCES, SPEAKERS = 281_241, 2338


def synthetic_manifest(root: Path) -> pd.DataFrame:
    """As many utterances as LibriSpeech-960 has, of noise nobody will read."""
    generator = np.random.default_rng(0)
    speakers = generator.integers(0, SPEAKERS, UTTERANCES)
    table = pd.DataFrame({"speaker_id": [f"{speaker}" for speaker in speakers]})
    table["utterance_id"] = [f"{s}-{i // 40}-{i:07d}" for i, s in enumerate(speakers)]
    table["session_id"], table["split"], table["text"] = "1", "train", ""
    table["path"] = str(root) + "/" + table["utterance_id"] + ".flac"
    table["num_samples"] = generator.integers(20_000, 560_000, UTTERANCES)
    table["sample_rate"] = 16_000
    table["shard"] = [shard_of(speaker, 64) for speaker in table["speaker_id"]]
    table["checksum"] = "0123456789abcdef"
    return table[COLUMNS]


def main() -> None:
    """Time and peak memory of `snakemake --dry-run`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = yaml.safe_load((ROOT / "config/librispeech.yaml").read_text())
        for corpus in config["corpora"].values():
            corpus["root"] = str(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        manifests = folder / "results" / config["run"] / "manifests"
        table = synthetic_manifest(folder)
        for corpus, entry in config["corpora"].items():
            (manifests / corpus).mkdir(parents=True)
            for name in (f"{corpus}.tsv", f"{corpus}.recordings.tsv"):
                write_manifest(table, manifests / name)
            (manifests / f"{corpus}.rejected.tsv").write_text("path\treason\n")
            for index in range(entry["shards"]):
                rows = table[table["shard"] == f"{index:04d}"]
                write_manifest(rows, manifests / corpus / f"{index:04d}.tsv")
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run"]
        command += ["--workflow-profile", str(ROOT / "profiles/default")]
        print(f"snakemake -n, {UTTERANCES:,} utterances: ", end="", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "--configfile", "config.yaml"], cwd=folder, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        jobs = re.search(r"^total +([0-9]+)", done.stdout + done.stderr, re.MULTILINE)
        print(f"{jobs[1] if jobs else 'no'} jobs planned in {seconds:.1f} s and {peak:.0f} MB")


if __name__ == "__main__":
    main()

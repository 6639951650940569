"""Planning LibriSpeech-960 (281,241 utterances) and VoxCeleb2 (1,092,009) by their manifests.

python -m tests.bench_planning              time and memory of `snakemake -n` and `etaflow plan`
python -m tests.bench_planning --profile    where the time of `snakemake -n` goes
"""

import cProfile
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.scale_tools import ROOT


def timed(name: str, command: list[str], folder: Path) -> None:
    """Print how long a command takes, and how many jobs it says there are."""
    environment, start = dict(os.environ, PYTHONPATH=str(ROOT)), time.perf_counter()
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(text)
    jobs = re.search(r"^(?:total +|in all: )([0-9,]+)", text, re.MULTILINE)
    print(
        f"{name}: {jobs[1] if jobs else 'no'} jobs in {seconds:.1f} s, "
        f"{usage.ru_utime + usage.ru_stime:.1f} s of a processor, {usage.ru_maxrss / 1024:.0f} MB"
    )


def profiled(folder: Path, arguments: list[str]) -> None:
    """Print the functions that `snakemake -n` spends its time in."""
    from snakemake.cli import args_to_api, parse_args

    os.chdir(folder)
    profile = cProfile.Profile()
    parser, parsed = parse_args(arguments)
    profile.runcall(args_to_api, parsed, parser)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


def main() -> None:
    """Write the manifests, and plan."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # In a process of its own: the memory of this one would be counted with its children's.
        writing = f"from pathlib import Path; write_scale(Path({place!r}), scale_config())"
        program = f"from tests.scale_tools import scale_config, write_scale; {writing}"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
        config = folder / "scale.yaml"
        common = ["--configfile", str(config)]
        run = ["--snakefile", str(ROOT / "Snakefile"), "--dry-run", *common]
        run += ["--workflow-profile", str(ROOT / "profiles" / "default")]
        if "--profile" in sys.argv:
            profiled(folder, [*run, "--quiet", "all"])
            return
        timed("snakemake -n", [sys.executable, "-m", "snakemake", *run], folder)
        program = [sys.executable, "-c", "from etaflow.cli import app; app()"]
        timed("etaflow plan", [*program, "plan", *common], folder)


if __name__ == "__main__":
    main()

"""Measure the rates of `etaflow/planning/rates.tsv`: rows for it, on stdout.

    python -m tests.bench_rates                    networks of the published sizes, random weights
    python -m tests.bench_rates FOLDER CONFIG      what a finished run of CONFIG in FOLDER took

Networks compute with one thread, and the time is the processor's, so that other work on the
machine matters little; memory is the peak of a process of its own. Variants are in the words of
`etaflow.planning.variants`. Of a run, only rules that end in a model's work are taken: what is
mostly the start of Python in so small a run says nothing of a larger one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from tests.bench_features import peak_megabytes, recordings

CONFIG = Path(__file__).parents[1] / "config" / "librispeech.yaml"
WORK_OF_MODELS = (
    "convert",
    "dump_features",
    "embed_speakers",
    "separate",
    "train_separator",
    "train_speaker_encoder",
    "train_vocoder",
    "transcribe",
)
HOURS = "h of speech"


def machine() -> str:
    """The processor and how many cores it has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def processor_seconds(work: Callable[[], object], warm: bool = True) -> float:
    """Of one call, after another that warms up."""
    if warm:
        work()
    start = time.process_time()
    work()
    return time.process_time() - start


def features(layer: int) -> tuple[str, str, str, float]:
    from etaflow.fetching import fetch_model
    from etaflow.ssl import SSLEncoder

    waveforms = recordings(60, 16)
    hours = sum(map(len, waveforms)) / 16_000 / 3600
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "wavlm-large"
        entry = {"source": "random", "architecture": "wavlm-large", "seed": 0}
        fetch_model("wavlm-large", entry, model)
        encoder = SSLEncoder.from_pretrained(model, layer)
        encoder.encode(waveforms[:1])
        seconds = processor_seconds(lambda: encoder.encode(waveforms), warm=False)
    return "dump_features", f"wavlm-large layer {layer} float32", HOURS, seconds / hours


def embeddings(which: str) -> tuple[str, str, str, float]:
    from etaflow.speaker.network import embed
    from etaflow.speaker.networks import create_network
    from tests.bench_verification import voices

    waveforms = voices(20)  # Resemblyzer leaves out what is no voice
    hours = sum(map(len, waveforms)) / 16_000 / 3600
    if which == "resemblyzer":
        from etaflow.models import ModelInfo
        from etaflow.speaker.resemblyzer import Resemblyzer

        info = ModelInfo("resemblyzer", "package", "resemblyzer", "", "published", ".")
        encoder = Resemblyzer(info, torch.device("cpu"))
        seconds = processor_seconds(lambda: encoder.embed(waveforms))
        return "embed_speakers", "resemblyzer", HOURS, seconds / hours
    network = create_network({"kind": "ecapa", "channels": 1024, "dim": 192})
    seconds = processor_seconds(lambda: embed(network, waveforms))
    return "embed_speakers", "ecapa channels 1024 dim 192", HOURS, seconds / hours


def prematching() -> tuple[str, str, str, float]:
    from etaflow.knn import prematch

    frames = [np.random.default_rng(u).normal(size=(200, 1024)) for u in range(75)]
    hours = 75 * 200 / 50 / 3600
    utterances = [each.astype(np.float32) for each in frames]
    seconds = processor_seconds(lambda: list(prematch(utterances)), warm=False)
    return "prematch", "dimensions 1024", "h x h of a speaker", seconds / hours**2


def _hifigan() -> dict[str, object]:
    presets = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return dict(presets["vocoder"]["hifigan"])


def converting(method: str) -> tuple[str, str, str, float]:
    """Synthesis, and matching against eight minutes of the target."""
    from etaflow.knn import Pool
    from etaflow.planning.variants import vocoder_label
    from etaflow.vocoder import Generator, read_config

    sizes = {"feature_dim": 1024, **_hifigan()["generator"]}  # type: ignore[dict-item]
    generator = Generator(read_config(json.loads(json.dumps(sizes)))).eval()
    frames, pool = torch.randn(500, 1024), Pool(torch.randn(24_000, 1024))

    def work() -> object:
        given = pool.match(frames, 4) if method == "knn" else frames
        with torch.inference_mode():
            return generator.synthesise(given)

    seconds = processor_seconds(work)
    variant = f"{method} {vocoder_label(_hifigan())}"
    return "convert", variant, HOURS, seconds / (10 / 3600)


def vocoder_step() -> tuple[str, str, str, float]:
    from etaflow.audio import file_checksum
    from etaflow.planning.variants import vocoder_variant
    from etaflow.vocoder import Generator, read_config
    from etaflow.vocoder.discriminator import DiscriminatorConfig
    from etaflow.vocoder.task import VocoderTask
    from etaflow.waveforms import Waveforms
    from tests.bench_training import make_corpus, our_stepper

    entry = _hifigan()
    sizes = {"feature_dim": 1024, **entry["generator"]}  # type: ignore[dict-item]
    with tempfile.TemporaryDirectory() as place:
        store, paths = make_corpus(Path(place), 1024)
        names = list(paths)
        task = VocoderTask(
            Generator(read_config(json.loads(json.dumps(sizes)))),
            DiscriminatorConfig(**entry["discriminator"]),  # type: ignore[arg-type]
            store,
            Waveforms({name: (path, file_checksum(path)) for name, path in paths.items()}),
            names[1:],
            names[:1],
            entry["segment_frames"],  # type: ignore[arg-type]
            entry["batch_size"],  # type: ignore[arg-type]
        )
        seconds = processor_seconds(our_stepper(task, "float32"))
    return "train_vocoder", vocoder_variant(entry), "steps", seconds


MEASURED: dict[str, Callable[[], tuple[str, str, str, float]]] = {
    "features 6": lambda: features(6),
    "features 15": lambda: features(15),
    "resemblyzer": lambda: embeddings("resemblyzer"),
    "ecapa": lambda: embeddings("ecapa"),
    "prematch": prematching,
    "copy": lambda: converting("copy"),
    "knn": lambda: converting("knn"),
    "vocoder": vocoder_step,
}


def rate_row(rule: str, variant: str, unit: str, seconds: float, memory: float, how: str) -> str:
    """A line of `rates.tsv`."""
    source = f"{how}, {machine()}, PyTorch {torch.__version__.partition('+')[0]}"
    cells = [rule, variant, unit, "cpu", f"{seconds:.4g}", f"{memory:.0f}", source]
    return "\t".join(cells)


def rates_of_run(folder: Path, config: Path) -> None:
    """Rows of a finished run."""
    from etaflow.planning.amounts import amount_of
    from etaflow.planning.jobs import planned_jobs
    from etaflow.planning.rates import measured_rates
    from etaflow.planning.study import Study

    config = config.resolve()
    os.chdir(folder)
    plan = planned_jobs(CONFIG.parents[1] / "Snakefile", ["--configfile", str(config)])
    study = Study(plan.config)
    rates = measured_rates((job, amount_of(job, study)) for job in plan.known)
    for (rule, variant, unit, _), rate in sorted(rates.items()):
        if rule in WORK_OF_MODELS and variant:
            how = f"a run of config/{config.name}, start of Python included"
            print(rate_row(rule, variant, unit, rate.seconds, rate.memory_mb or 0, how))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        rates_of_run(Path(sys.argv[1]), Path(sys.argv[2]))
    elif len(sys.argv) == 2:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        found = MEASURED[sys.argv[1]]()
        how = "python -m tests.bench_rates, one thread"
        print(rate_row(*found, peak_megabytes() * 1.048576, how))
    else:
        for name in MEASURED:
            command = [sys.executable, "-m", "tests.bench_rates", name]
            subprocess.run(command, check=True)

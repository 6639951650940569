"""A bundle as the workflow's rule makes it, from small models, for tests."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from typer.testing import CliRunner

from etaflow.eta import EtaModel, Pca
from etaflow.evaluation.tables import COLUMNS as METRICS_COLUMNS
from etaflow.manifest import COLUMNS, write_manifest, write_table
from etaflow.models import read_model_info
from etaflow.separation.networks import create_separator, save_separator
from etaflow.vocoder import Generator, GeneratorConfig
from tests.conftest import ROOT

LAYER = 2
SIZES: dict[str, Any] = {
    "hidden_dim": 8,
    "upsample_channels": 16,
    "resblock_kernels": (3,),
    "resblock_dilations": ((1, 3),),
}


def facts(model: Path, weights: str) -> dict[str, Any]:
    info, _ = read_model_info(model)
    return {
        "model": info.name,
        "revision": info.revision,
        "layer": LAYER,
        "normalize": False,
        "weights": weights,
    }


def eta_model(ssl: Path, speaker: Path, embedding_dim: int, weights: str = "untrained") -> EtaModel:
    """One of no meaning, for the 128 dimensions of wavlm-tiny, with a PCA of 4 components."""
    random = np.random.default_rng(0)
    components = np.linalg.qr(random.normal(size=(embedding_dim, 4)))[0].T
    config = {
        **facts(ssl, weights),
        "encoder": read_model_info(speaker)[0].name,
        "utterances": 7,
        "speakers": 3,
        "frames": 1234,
        "condition_number": 12.5,
        "r2": 0.125,
        "r2_per_dimension": list(np.linspace(0, 0.25, 128)),
    }
    return EtaModel(
        random.normal(size=(4, 128)),
        random.normal(size=128),
        random.normal(size=128),
        Pca(random.normal(size=embedding_dim), components, np.array([0.4, 0.3, 0.15, 0.05])),
        config,
    )


def make_bundle(
    folder: Path,
    ssl: Path,
    speaker: Path,
    embedding_dim: int = 256,
    weights: str = "untrained",
    with_others: bool = False,
    dtype: str = "float32",
) -> Path:
    """Run `scripts/bundle.py` on model folders as `fetch_model` makes them.

    With others: a verifier by the speaker encoder, and an untrained separator, `small`.
    """
    inputs = folder / "inputs"
    eta_model(ssl, speaker, embedding_dim, weights).save_pretrained(inputs / "eta")
    torch.manual_seed(0)
    vocoder = Generator(GeneratorConfig(feature_dim=128, **SIZES))
    vocoder.save_pretrained(inputs / "vocoder", **facts(ssl, weights), step=9)
    write_table(
        pd.DataFrame([(9, "valid/mel_distance", 1.5)], columns=["step", "metric", "value"]),
        inputs / "vocoder" / "metrics.tsv",
    )
    rows = [
        (f"u{n}", f"s{n % 3}", "1", "test" if n == 6 else "train", f"{n}.wav", 16_000 * 600)
        for n in range(7)
    ]
    manifest = [(*row, 16_000, "", "0000", "0") for row in rows]
    write_manifest(pd.DataFrame(manifest, columns=COLUMNS), inputs / "corpus.tsv")
    metrics = [
        ("original", "wer", 3.0, 1.0, 5.0, 20, "published"),
        ("knnvc", "wer", 86.3, 80.0, 90.0, 60, weights),
        ("knnvc-5s", "wer", 99.3, 80.0, 99.9, 60, weights),
    ]
    write_table(pd.DataFrame(metrics, columns=METRICS_COLUMNS), inputs / "metrics.tsv")
    config = {
        "run": "small",
        "seeds": {"corpus mine": 3, "vocoder": 5},
        "eta": {"corpus": "mine", "layer": LAYER, "pca": 4},
        "vocoder": {"corpus": "mine", "steps": 12},
        "trained_on": {"eta": ["mine"], "vocoder": ["mine"]},
        "licences": {"mine": "CC BY 4.0"},
        "dtype": dtype,
        "evaluation": {
            "systems": ["original", "knnvc"],
            "corpus": {"name": "mine", "kind": "mini"},
            "judge": {"architecture": "resemblyzer"},
            "asr": {"engine": "pocketsphinx", "grammar": None},
            "pairs": {"sources_per_speaker": 2},
            "bootstrap_rounds": 100,
        },
        "origins": {
            "ssl": {"place": "https://huggingface.co/someone/wavlm", "licence": "MIT"},
            "speaker": {"place": "", "licence": ""},
        },
    }
    arguments = {
        "config": json.dumps(config),
        "ssl": ssl / "model.json",
        "speaker": speaker / "model.json",
        "eta": inputs / "eta",
        "vocoder": inputs / "vocoder",
        "manifest": f"mine={inputs / 'corpus.tsv'}",
        "metrics": inputs / "metrics.tsv",
        "output": folder / "bundle" / "config.json",
    }
    if with_others:
        config["origins"] |= {"verifier": {"place": "", "licence": "Apache-2.0"}}
        config["separated_by"] = ["apart"]
        arguments |= verifier_arguments(inputs, speaker) | separator_arguments(inputs)
        arguments["config"] = json.dumps(config)
    run_script("bundle", arguments)
    return folder / "bundle"


def verifier_arguments(inputs: Path, encoder: Path) -> dict[str, Any]:
    """A verifier as `scripts/bundle_verifier.py` makes it, and a table of verification."""
    trials = pd.DataFrame({"enrolment": [*"abcd"], "test": [*"efgh"], "target": [1, 1, 0, 0]})
    write_table(trials.assign(score=[0.9, 0.7, 0.5, 0.1]), inputs / "scores.tsv")
    columns = ["system", "trials", *METRICS_COLUMNS[1:]]
    rows = [("cosine", "pairs", "eer", 12.5, 10.0, 15.0, 4, "published")]
    table = inputs / "verification.tsv"
    write_table(pd.DataFrame(rows, columns=columns), table)
    arguments = {
        "system": "cosine",
        "encoder": encoder / "model.json",
        "metrics": table,
        "trials": inputs / "scores.tsv",
        "config": json.dumps(
            {
                "run": "small",
                "trials": "pairs",
                "corpora": ["mine"],
                "as_norm": None,
                "max_seconds": None,
            }
        ),
        "output-dir": inputs / "verifier",
    }
    run_script("bundle_verifier", arguments)
    return {"verifier": inputs / "verifier", "verification-metrics": table}


def separator_arguments(inputs: Path) -> dict[str, Any]:
    """A separator that was trained for no step, and a table of separation."""
    torch.manual_seed(0)
    folder = inputs / "separator"
    folder.mkdir()
    sizes = {"channels": 16, "kernel": 16, "blocks": 2, "layers": 2}
    network = create_separator(
        {"kind": "conv-tasnet", "sample_rate": 8_000, "speakers": 2, **sizes}
    )
    save_separator(network, folder, name="small", weights="untrained")
    columns = ["system", "mixtures", *METRICS_COLUMNS[1:]]
    rows = [
        ("mixture", "two", "si_snr", 0.0, -0.5, 0.5, 3, "trained"),
        ("apart", "two", "si_snri", 4.25, 3.0, 5.5, 3, "untrained"),
    ]
    table = inputs / "separation.tsv"
    write_table(pd.DataFrame(rows, columns=columns), table)
    return {"separator": folder / "model.json", "separation-metrics": table}


def run_script(name: str, arguments: dict[str, Any], *positional: Path) -> None:
    """Run one of `scripts/` in this process; what it raises is raised."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    command = [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
    command += map(str, positional)
    done = CliRunner().invoke(script.app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def upstream_checkpoint(generator: Generator) -> dict[str, Any]:
    """A generator's weights as kNN-VC's code saves them."""
    names = {"hifigan.": "", ".conv.": ".", "parametrizations.weight.original": "weight_"}
    weights = {}
    for name, value in generator.network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name.replace("weight_0", "weight_g").replace("weight_1", "weight_v")] = value
    return {"generator": weights}

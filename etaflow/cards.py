"""What the card of a bundle says of each of its parts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from etaflow.bundles import NAMES, PARTS
from etaflow.eta import EtaModel
from etaflow.evaluation.tables import format_metrics_table
from etaflow.manifest import read_manifest
from etaflow.models import ModelInfo
from etaflow.separation.networks import load_separator
from etaflow.verification.verifier import CONFIG

FIT = """The Eta fit is of {utterances} utterances of {speakers} speakers, {frames} frames. It
explains {r2:.2%} of the variance of all frames of these utterances (R² over all
dimensions){held_out}. Its condition number is {condition:.4g}."""

MADE_HERE = (
    "None is stated for the weights that were made in this run: whoever publishes them says which, "
    "as `license:` at the top of this file."
)

VERIFIER = """## The verifier

`{name}` says whether two recordings are of one speaker, by the {score} of embeddings of {encoder}.
Its threshold, {threshold:.4g}, was {how} `{trials}` ({targets} target and {nontargets} non-target
trials). Its equal error rate on the trials `{eer_trials}` is {eer:.2f} %. Its weights are
{weights}; it was trained, calibrated or measured on the corpora {corpora}, and suits recordings
like those. `verifier/README.md` says more.
"""

SEPARATOR = """## The separator

`{name}` takes recordings of {speakers} speakers at once apart. It works at {rate} Hz: what a
recording has above half of that is lost. Its weights are {weights}.
"""

SCORES = """
The run's scores of what it separates, in dB, each with its bootstrap 95 % interval
over speakers:

```
{table}
```
"""


def model_row(folder: str, info: ModelInfo, place: str) -> str:
    """A row on a model that was copied; `place` is where it can be had, or empty."""
    where = f"{info.source}, revision `{info.revision}`"
    if info.source == "run":
        where = f"trained in this run, revision `{info.revision}`"
    if info.source == "package" and info.architecture in PARTS:
        where, place = f"the bundle that comes with etaflow, revision `{info.revision}`", ""
    elif info.source == "package":
        where = f"the Python package {info.architecture} {info.revision}, not in this folder"
    where = f"{place} ({where})" if place else where
    return f"| `{folder}` | {info.name}, {info.architecture} | {where} | {info.weights} |"


def corpus_facts(name: str, manifest: Path, licence: str) -> dict[str, Any]:
    """The size of a corpus's training split, and the licence of its recordings, if it is known."""
    table = read_manifest(manifest).query("split == 'train'")
    return {
        "corpus": name,
        "hours": float((table["num_samples"] / table["sample_rate"]).sum() / 3600),
        "speakers": int(table["speaker_id"].nunique()),
        "utterances": len(table),
        "licence": licence,
    }


def corpus_table(trained_on: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What each part of a bundle was trained on, a column each; see `corpus_facts`."""
    columns = [(part, facts) for part in NAMES if part in trained_on for facts in trained_on[part]]
    rows = {
        "": [NAMES[part] for part, _ in columns],
        "---": ["---"] * len(columns),
        "corpus": [f"`{facts['corpus']}`" for _, facts in columns],
        "hours": [f"{facts['hours']:.2f}" for _, facts in columns],
        "speakers": [str(facts["speakers"]) for _, facts in columns],
        "utterances": [str(facts["utterances"]) for _, facts in columns],
    }
    return "\n".join(f"| {key} | {' | '.join(cells)} |" for key, cells in rows.items())


def eta_row(model: EtaModel, weights: str) -> str:
    """A row on an Eta model, with the weights of what it was fitted on."""
    components = f"of {len(model.coefficients)} dimensions of the embedding"
    if model.pca:
        share = model.pca.explained_variance_ratio.sum()
        components = (
            f"of {len(model.coefficients)} principal components of the embedding, "
            f"{share:.1%} of its variance"
        )
    return f"| `eta` | Eta model {components} | fitted in this run | on {weights} models |"


def vocoder_row(
    trained_on: dict[str, Any], origin: dict[str, str] | None, kind: str = "hifigan"
) -> str:
    """What the vocoder is; one that was not trained in the run from nothing has an origin."""
    name = {
        "hifigan": "HiFi-GAN",
        "istft": "ConvNeXt blocks and an inverse STFT",
        "harmonic": "ConvNeXt blocks that filter pulses and noise",
    }[kind]
    step = f", the weights of step {trained_on['step']}" if "step" in trained_on else ""
    weights = trained_on["weights"]
    if origin is None:
        return f"| `vocoder` | {name}{step} | trained in this run | on {weights} models |"
    where = origin["place"] or "a folder of the user's own"
    if "start" in trained_on:
        place = f"trained in this run from {where}"
        return f"| `vocoder` | {name}{step} | {place} | on {weights} models |"
    return f"| `vocoder` | {name}{step} | {where} | {weights} |"


def fit_text(fitted_on: dict[str, Any]) -> str:
    """What the config of an Eta model says of its fit."""
    held_out = fitted_on.get("r2_held_out")
    return FIT.format(
        utterances=fitted_on["utterances"],
        speakers=fitted_on["speakers"],
        frames=fitted_on["frames"],
        r2=fitted_on["r2"],
        held_out="" if held_out is None else f", and {held_out:.2%} of the corpus's test split",
        condition=fitted_on["condition_number"],
    )


def verifier_section(folder: Path) -> str:
    """A section on the verifier of a folder that `scripts/bundle_verifier.py` wrote."""
    stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    trials, calibrated = stored["trials"], stored["calibration"] is not None
    return VERIFIER.format(
        name=stored["name"],
        score="calibrated log-likelihood ratio" if calibrated else "cosine",
        encoder=stored["encoder"],
        threshold=stored["threshold"],
        how="calibrated on" if calibrated else "set where both errors are as frequent on",
        trials=trials["name"],
        targets=trials["targets"],
        nontargets=trials["nontargets"],
        eer_trials=trials["eer_trials"],
        eer=trials["eer"],
        weights=trials["weights"],
        corpora=", ".join(f"`{corpus}`" for corpus in trials["corpora"]),
    )


def separator_section(folder: Path, scores: pd.DataFrame | None) -> str:
    """A section on a separator.

    Args:
        folder: of the model.
        scores: rows of the run's table of separation that are of its systems, if there are any.

    Raises:
        ModelError: it cannot be loaded.
    """
    info, network = load_separator(folder)
    return SEPARATOR.format(
        name=info.name,
        speakers=network.num_speakers,
        rate=network.sample_rate,
        weights=info.weights,
    ) + ("" if scores is None else SCORES.format(table=format_metrics_table(scores)))


def licence_text(
    origins: Mapping[str, Mapping[str, str]],
    trained_on: Mapping[str, Sequence[Mapping[str, Any]]],
    made_here: bool,
) -> str:
    """The licences of what comes from elsewhere, and whether there is something that does not.

    Args:
        origins: of models, by their folder: `licence`, or an empty one.
        trained_on: by folder, what was trained on; see `corpus_facts`.
        made_here: whether weights were made in this run.
    """
    known = [
        f"- `{folder}`: {origin['licence'] or 'keeps the one that it came with'}"
        for folder, origin in sorted(origins.items())
    ]
    licences = {
        facts["corpus"]: facts["licence"] for corpora in trained_on.values() for facts in corpora
    }
    known += [f"- recordings of `{name}`: {text}" for name, text in licences.items() if text]
    return "\n".join([*([MADE_HERE, ""] if made_here else []), *known])

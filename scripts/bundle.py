"""Gather what a user takes away from a run: models, Eta, vocoder, and a card."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub import ModelCardData

import etaflow
from etaflow.atomic import atomic_directory, write_json, write_text
from etaflow.converter import BUNDLE_FORMAT
from etaflow.eta import EtaModel
from etaflow.evaluation.protocol import run_protocol
from etaflow.evaluation.tables import format_metrics_table
from etaflow.fetching import copy_model
from etaflow.manifest import read_manifest, read_table
from etaflow.models import ModelInfo, worst_weights

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

CARD = """---
{front_matter}
---

# etaflow bundle of the run `{run}`

{warning}Models that belong together, gathered by etaflow {version}: an SSL encoder and a vocoder,
which convert voices by nearest neighbours ([kNN-VC](https://arxiv.org/abs/2305.18975)){with_eta}.

## Use

`OWNER/NAME` is this repository on the Hugging Face Hub, or the folder of a copy.

    etaflow convert SOURCE.wav TARGET.wav -o OUT.wav --bundle OWNER/NAME
{analyze}
```python
from etaflow import VoiceConverter
from etaflow.audio import read_audio, write_audio

converter = VoiceConverter.from_pretrained("OWNER/NAME")
waveform = converter.convert(read_audio("source.wav"), [read_audio("target.wav")], method="knn")
write_audio("out.wav", waveform)
```

## What is in it

| folder | model | where it is from | weights |
| --- | --- | --- | --- |
{models}

Features are those of layer {layer}; waveforms are {normalized} zero mean and unit variance first.

## What it was made from

{made_from}

## Licence

{licences}
"""

WITH_ETA = """,
a speaker encoder, and an [Eta model](https://arxiv.org/abs/2505.19273), which takes out of features
what is linear in the speaker embedding; they show what it does to a recording, too"""

ANALYZE = """    etaflow analyze RECORDING.wav -o FOLDER --bundle OWNER/NAME
"""

FIT = """The Eta fit is of {utterances} utterances of {speakers} speakers, {frames} frames. It
explains {r2:.2%} of the variance of all frames of these utterances (R² over all
dimensions){held_out}. Its condition number is {condition:.4g}."""

METRICS = """## The run's conversion metrics

```
{metrics}
```

Values are followed by their bootstrap 95 % interval. Protocol: {protocol}."""

MADE_HERE = (
    "None is stated for the weights that were made in this run: whoever publishes them says which, "
    "as `license:` at the top of this file."
)

WARNING = """> **Warning: untrained weights.** Conversions are noise, and what numbers there
> are below say that the workflow runs, not how well the method works.

"""


def model_row(folder: str, info: ModelInfo, place: str) -> str:
    where = f"{info.source}, revision `{info.revision}`"
    if info.source == "package":
        where = f"the Python package {info.architecture} {info.revision}, not in this folder"
    where = f"{place} ({where})" if place else where
    return f"| `{folder}` | {info.name}, {info.architecture} | {where} | {info.weights} |"


def corpus_table(corpora: dict[str, tuple[str, Path]]) -> str:
    """The size of the training split of corpora: {what for: (name, manifest)}, a column each."""
    tables = [read_manifest(path).query("split == 'train'") for _, path in corpora.values()]
    rows = {
        "": list(corpora),
        "---": ["---"] * len(corpora),
        "corpus": [f"`{name}`" for name, _ in corpora.values()],
        "hours": [f"{(t['num_samples'] / t['sample_rate']).sum() / 3600:.2f}" for t in tables],
        "speakers": [str(t["speaker_id"].nunique()) for t in tables],
        "utterances": [str(len(t)) for t in tables],
    }
    return "\n".join(f"| {key} | {' | '.join(cells)} |" for key, cells in rows.items())


def eta_row(model: EtaModel, weights: str) -> str:
    components = f"of {len(model.coefficients)} dimensions of the embedding"
    if model.pca:
        share = model.pca.explained_variance_ratio.sum()
        components = (
            f"of {len(model.coefficients)} principal components of the embedding, "
            f"{share:.1%} of its variance"
        )
    return f"| `eta` | Eta model {components} | fitted in this run | on {weights} models |"


def vocoder_row(trained_on: dict[str, Any], origin: dict[str, str] | None) -> str:
    """What the vocoder is; one that was not trained in the run has an origin."""
    step = f", the weights of step {trained_on['step']}" if "step" in trained_on else ""
    weights = trained_on["weights"]
    if origin is None:
        return f"| `vocoder` | HiFi-GAN{step} | trained in this run | on {weights} models |"
    where = origin["place"] or "a folder of the user's own"
    return f"| `vocoder` | HiFi-GAN{step} | {where} | {weights} |"


def fit_text(fitted_on: dict[str, Any]) -> str:
    held_out = fitted_on.get("r2_held_out")
    return FIT.format(
        utterances=fitted_on["utterances"],
        speakers=fitted_on["speakers"],
        frames=fitted_on["frames"],
        r2=fitted_on["r2"],
        held_out="" if held_out is None else f", and {held_out:.2%} of the corpus's test split",
        condition=fitted_on["condition_number"],
    )


def made_from(
    settings: dict[str, Any],
    corpora: dict[str, tuple[str, Path]],
    fit: EtaModel | None,
    metrics: Path | None,
) -> str:
    """What is known of data, fit, config and scores."""
    parts = [f"The training split of:\n\n{corpus_table(corpora)}"] if corpora else []
    parts += [fit_text(fit.config)] if fit else []
    seeds = ", ".join(f"{name} {seed}" for name, seed in settings["seeds"].items())
    parts += [f"Seeds: {seeds}."] if seeds else []
    entries = {name: settings[name] for name in ("eta", "vocoder") if name in settings}
    text = json.dumps(entries, indent=2, sort_keys=True)
    parts += [f"The entries of the config:\n\n```json\n{text}\n```"]
    if metrics:
        evaluation = settings["evaluation"]
        table = read_table(metrics, ("value", "low", "high", "n"))
        table = table[table["system"].isin(evaluation["systems"])]
        protocol = run_protocol(evaluation, table).words()
        parts += [METRICS.format(metrics=format_metrics_table(table), protocol=protocol)]
    return "\n\n".join(parts)


def licence_text(origins: dict[str, dict[str, str]], made_here: bool) -> str:
    known = [
        f"- `{folder}`: {origin['licence'] or 'keeps the one that it came with'}"
        for folder, origin in sorted(origins.items())
    ]
    return "\n".join([*([MADE_HERE, ""] if made_here else []), *known])


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: run, seeds, vocoder and eta (their entries), origins: of each folder "
            "whose weights are not made in the run, {place, licence}; for metrics, evaluation"
        ),
    ],
    ssl: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    vocoder: Annotated[Path, typer.Option(help="folder of the vocoder")],
    output: Annotated[Path, typer.Option(help="config.json of the bundle to write")],
    vocoder_manifest: Annotated[
        Path | None, typer.Option(help="manifest that it was trained on in the run")
    ] = None,
    eta: Annotated[Path | None, typer.Option(help="folder of the Eta model, if any")] = None,
    speaker: Annotated[Path | None, typer.Option(help="model.json of its speaker encoder")] = None,
    eta_manifest: Annotated[
        Path | None, typer.Option(help="manifest that it was fitted on")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="metrics.tsv of the run's conversions, if any")
    ] = None,
) -> None:
    """Write a folder that `etaflow.VoiceConverter.from_pretrained` loads, and the Hub takes."""
    settings: dict[str, Any] = json.loads(config)
    origins = settings["origins"]
    trained_on = json.loads((vocoder / "config.json").read_text(encoding="utf-8"))["trained_on"]
    fit = EtaModel.from_pretrained(eta) if eta else None
    weights = worst_weights([part["weights"] for part in (trained_on, fit and fit.config) if part])
    tags = ["voice-conversion", "knn-vc", *["eta-wavlm"] * bool(fit), "hifi-gan"]
    front_matter = ModelCardData(
        library_name="etaflow",
        pipeline_tag="audio-to-audio",
        tags=tags + ["untrained"] * (weights == "untrained"),
    )
    corpora = {}
    if eta_manifest:
        corpora["Eta model"] = (settings["eta"]["corpus"], eta_manifest)
    if vocoder_manifest:
        corpora["vocoder"] = (settings["vocoder"]["corpus"], vocoder_manifest)
    with atomic_directory(output.parent) as part:
        models = [model_row("ssl", copy_model(ssl, part / "ssl"), origins["ssl"]["place"])]
        if speaker and fit:
            info = copy_model(speaker, part / "speaker")
            models += [model_row("speaker", info, origins["speaker"]["place"])]
            models += [eta_row(fit, fit.config["weights"])]
            fit.save_pretrained(part / "eta")
        models += [vocoder_row(trained_on, origins.get("vocoder"))]
        shutil.copytree(vocoder, part / "vocoder")
        write_text(
            part / "README.md",
            CARD.format(
                front_matter=front_matter.to_yaml(),
                run=settings["run"],
                warning=WARNING if weights == "untrained" else "",
                version=etaflow.__version__,
                with_eta=WITH_ETA if fit else "",
                analyze=ANALYZE if fit else "",
                models="\n".join(models),
                layer=trained_on["layer"],
                normalized="brought to" if trained_on["normalize"] else "not brought to",
                made_from=made_from(settings, corpora, fit, metrics),
                licences=licence_text(origins, made_here=bool(fit or vocoder_manifest)),
            ),
        )
        write_json(
            part / "config.json",
            {
                "format": BUNDLE_FORMAT,
                "run": settings["run"],
                "layer": trained_on["layer"],
                "normalize": trained_on["normalize"],
                "weights": weights,
                "eta": fit is not None,
            },
        )


if __name__ == "__main__":
    app()

"""Gather what a user takes away from a run: models, Eta, vocoder, and a card."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from huggingface_hub import ModelCardData

import etaflow
from etaflow.atomic import atomic_directory, write_json, write_text
from etaflow.bundles import FORMAT, PARTS, VERIFIER, shipped_bundle
from etaflow.cards import (
    corpus_facts,
    corpus_table,
    eta_row,
    fit_text,
    licence_text,
    model_row,
    separator_section,
    verifier_section,
    vocoder_row,
)
from etaflow.eta import EtaModel
from etaflow.evaluation.protocol import run_protocol
from etaflow.evaluation.tables import format_metrics_table
from etaflow.fetching import copy_model, halve_model
from etaflow.manifest import read_table
from etaflow.models import ModelInfo, read_model_info, worst_weights
from etaflow.script import new_app
from etaflow.verification.verifier import CONFIG, ENCODER
from etaflow.weights import halve_weights

app = new_app()

CARD = """---
{front_matter}
---

# etaflow bundle of the run `{run}`

{warning}Models that belong together, gathered by etaflow {version}: an SSL encoder and a vocoder,
which convert voices by nearest neighbours ([kNN-VC](https://arxiv.org/abs/2305.18975)){with_eta}.
{with_others}
## Use

`OWNER/NAME` is this repository on the Hugging Face Hub, or the folder of a copy{copied}.

{commands}

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
{precision}
{others}## What it was made from

{made_from}

## Licence

{licences}
"""

WITH_ETA = """,
a speaker encoder, and an [Eta model](https://arxiv.org/abs/2505.19273), which takes out of features
what is linear in the speaker embedding; they show what it does to a recording, too"""

CONVERT = "etaflow convert SOURCE.wav TARGET.wav -o OUT.wav --bundle OWNER/NAME"
ANALYZE = "etaflow analyze RECORDING.wav -o OUT --bundle OWNER/NAME"
VERIFY = "etaflow verify ONE.wav OTHER.wav --bundle COPY"
SEPARATE = "etaflow separate MIXTURE.wav -o OUT --model COPY/separator"
SERVE = "etaflow serve --bundle OWNER/NAME"

METRICS = """## The run's conversion metrics

```
{metrics}
```

Values are followed by their bootstrap 95 % interval. Protocol: {protocol}."""

WARNING = """> **Warning: untrained weights.** {untrained}. What numbers there are of them say
> that the workflow runs, not how well the method works.

"""
COPIED = """;
`COPY` is the folder of one (`hf download OWNER/NAME --local-dir COPY`)"""
OTHERS = {"verifier": "speaker verifier", "separator": "speech separator"}
HALVED = """Weights are rounded to float16, and computed with in float32. A rounded model has a
revision of its own, which is in its `model.json`.
"""
# What is said of each part whose weights are.
UNTRAINED = {
    "conversion": "conversions are noise",
    "verifier": "decisions of the verifier say nothing about speakers",
    "separator": "what the separator gives is noise",
}


def trained_on_corpora(
    settings: dict[str, Any], manifests: list[str], copied: dict[str, ModelInfo]
) -> dict[str, list[dict[str, Any]]]:
    """The corpora that each part was trained on: in this run, or before it was shipped."""
    files = dict(item.split("=", 1) for item in manifests)
    licences = settings.get("licences", {})
    found = {
        part: [corpus_facts(name, Path(files[name]), licences.get(name, "")) for name in corpora]
        for part, corpora in settings.get("trained_on", {}).items()
    }
    from_package = [
        part
        for part, info in copied.items()
        if info.source == "package" and PARTS.get(info.architecture) == part
    ]
    from_package += ["vocoder"] if settings.get("shipped_vocoder") else []
    if from_package:
        shipped = json.loads((shipped_bundle() / "config.json").read_text(encoding="utf-8"))
        for part in from_package:
            # A vocoder that was trained on has heard both.
            here = found.get(part, [])
            names = {facts["corpus"] for facts in here}
            before = shipped["trained_on"].get(part, [])
            heard = [facts for facts in before if facts["corpus"] not in names] + here
            found |= {part: heard} if heard else {}
    return found


def halve_parts(bundle: Path, fit: EtaModel | None) -> None:
    """Round the weights of what converts and verifies, and have each name the others' revisions.

    The Eta model, a few small matrices, stays in float64.
    """
    revision = halve_model(bundle / "ssl").revision
    halve_weights(bundle / "vocoder")
    config = json.loads((bundle / "vocoder" / "config.json").read_text(encoding="utf-8"))
    config["trained_on"]["revision"] = revision
    write_json(bundle / "vocoder" / "config.json", config)
    if fit:
        halve_model(bundle / "speaker")
        replace(fit, config=fit.config | {"revision": revision}).save_pretrained(bundle / "eta")
    if (bundle / VERIFIER).is_dir():
        halve_model(bundle / VERIFIER / ENCODER)


def made_from(
    settings: dict[str, Any],
    corpora: dict[str, list[dict[str, Any]]],
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


def separator_scores(metrics: Path | None, settings: dict[str, Any]) -> pd.DataFrame | None:
    """The rows of the table that are of the bundle's separator."""
    if metrics is None:
        return None
    table = read_table(metrics, ("value", "low", "high", "n"))
    return table[table["system"].isin(settings["separated_by"])]


def front_matter(with_eta: bool, kind: str, labels: dict[str, str]) -> str:
    """What the Hub reads of a card; the labels are the weights of each part of the bundle."""
    tags = ["voice-conversion", "knn-vc", *["eta-wavlm"] * with_eta]
    tags += [{"hifigan": "hifi-gan", "istft": "vocos", "harmonic": "ddsp"}[kind]]
    tags += ["speaker-verification"] * ("verifier" in labels)
    tags += ["speech-separation"] * ("separator" in labels)
    tags += ["untrained"] * ("untrained" in labels.values())
    card = ModelCardData(library_name="etaflow", pipeline_tag="audio-to-audio", tags=tags)
    return str(card.to_yaml())


def warning(labels: dict[str, str]) -> str:
    said = [UNTRAINED[part] for part, weights in labels.items() if weights == "untrained"]
    return WARNING.format(untrained="; ".join(said).capitalize()) if said else ""


def with_others(labels: dict[str, str]) -> str:
    others = [f"a {OTHERS[part]}" for part in labels if part in OTHERS]
    return f"They come with {' and '.join(others)}.\n" if others else ""


def commands(with_eta: bool, labels: dict[str, str]) -> str:
    found = [CONVERT, *[ANALYZE] * with_eta, *[VERIFY] * ("verifier" in labels)]
    found += [*[SEPARATE] * ("separator" in labels), SERVE]
    return "\n".join(f"    {command}" for command in found)


@app.command()
def main(
    config: Annotated[
        str,
        typer.Option(
            help="JSON: run, seeds, vocoder and eta (their entries), origins: of each folder "
            "whose weights are not made in the run, {place, licence}; trained_on: of each that is "
            "trained in it, the corpora; shipped_vocoder, where it is, or starts from, that of the "
            "package; licences of corpora; dtype of weights, float32 (as they "
            "are) or float16; for metrics, evaluation; for separation metrics, separated_by: the "
            "systems of the separator"
        ),
    ],
    ssl: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    vocoder: Annotated[Path, typer.Option(help="folder of the vocoder")],
    output: Annotated[Path, typer.Option(help="config.json of the bundle to write")],
    manifest: Annotated[
        list[str] | None, typer.Option(help="CORPUS=TSV of each corpus that was trained on")
    ] = None,
    eta: Annotated[Path | None, typer.Option(help="folder of the Eta model, if any")] = None,
    speaker: Annotated[Path | None, typer.Option(help="model.json of its speaker encoder")] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="metrics.tsv of the run's conversions, if any")
    ] = None,
    verifier: Annotated[Path | None, typer.Option(help="folder of a verifier, if any")] = None,
    verification_metrics: Annotated[
        Path | None, typer.Option(help="metrics.tsv of the run's verification, if any")
    ] = None,
    separator: Annotated[
        Path | None, typer.Option(help="model.json of a separator, if any")
    ] = None,
    separation_metrics: Annotated[
        Path | None, typer.Option(help="metrics.tsv of the run's separation, if any")
    ] = None,
) -> None:
    """Write a folder that `etaflow.VoiceConverter.from_pretrained` loads, and the Hub takes."""
    settings: dict[str, Any] = json.loads(config)
    origins = settings["origins"]
    vocoded = json.loads((vocoder / "config.json").read_text(encoding="utf-8"))
    trained_on, kind = vocoded["trained_on"], vocoded["generator"].get("kind", "hifigan")
    fit = EtaModel.from_pretrained(eta) if eta else None
    weights = worst_weights([part["weights"] for part in (trained_on, fit and fit.config) if part])
    halved = settings.get("dtype") == "float16"
    tables = {
        "conversion": metrics,
        "verification": verification_metrics,
        "separation": separation_metrics,
    }
    with atomic_directory(output.parent) as part:
        copied = {"ssl": copy_model(ssl, part / "ssl")}
        made, sections, labels = [], [], {"conversion": weights}
        if speaker and fit:
            copied["speaker"] = copy_model(speaker, part / "speaker")
            made += [eta_row(fit, fit.config["weights"])]
            fit.save_pretrained(part / "eta")
        made += [vocoder_row(trained_on, origins.get("vocoder"), kind)]
        shutil.copytree(vocoder, part / "vocoder")
        if verifier:
            shutil.copytree(verifier, part / VERIFIER)
            copied["verifier"], _ = read_model_info(part / VERIFIER / ENCODER)
            sections += [verifier_section(part / VERIFIER)]
            stored = json.loads((part / VERIFIER / CONFIG).read_text(encoding="utf-8"))
            labels["verifier"] = stored["trials"]["weights"]
        if separator:
            copied["separator"] = copy_model(separator, part / "separator")
            scores = separator_scores(separation_metrics, settings)
            sections += [separator_section(part / "separator", scores)]
            labels["separator"] = copied["separator"].weights
        if halved:
            halve_parts(part, fit)
        corpora = trained_on_corpora(settings, manifest or [], copied)
        for name, table in tables.items():
            if table:
                (part / "metrics").mkdir(exist_ok=True)
                shutil.copyfile(table, part / "metrics" / f"{name}.tsv")
        trained_here = any(info.source == "run" for info in copied.values())
        rows = [
            model_row(folder, info, origins.get(folder, {}).get("place", ""))
            for folder, info in copied.items()
        ]
        write_text(
            part / "README.md",
            CARD.format(
                front_matter=front_matter(bool(fit), kind, labels),
                run=settings["run"],
                warning=warning(labels),
                version=etaflow.__version__,
                with_eta=WITH_ETA if fit else "",
                with_others=with_others(labels),
                copied=COPIED if sections else "",
                commands=commands(bool(fit), labels),
                models="\n".join(rows + made),
                layer=trained_on["layer"],
                normalized="brought to" if trained_on["normalize"] else "not brought to",
                precision=HALVED if halved else "",
                others="".join(f"{section}\n" for section in sections),
                made_from=made_from(settings, corpora, fit, metrics),
                licences=licence_text(
                    origins,
                    corpora,
                    made_here=bool(fit or "vocoder" not in origins or trained_here),
                ),
            ),
        )
        write_json(
            part / "config.json",
            {
                "format": FORMAT,
                "run": settings["run"],
                "layer": trained_on["layer"],
                "normalize": trained_on["normalize"],
                "weights": weights,
                "eta": fit is not None,
                "trained_on": corpora,
            },
        )


if __name__ == "__main__":
    app()

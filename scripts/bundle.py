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
from etaflow.hub import needed_files
from etaflow.manifest import read_manifest, read_table
from etaflow.models import ModelInfo, read_model_info, worst_weights

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

CARD = """---
{front_matter}
---

# etaflow bundle of the run `{run}`

{warning}Four models that belong together, made by etaflow {version}: an SSL encoder, a speaker
encoder, an [Eta model](https://arxiv.org/abs/2505.19273), which takes out of features what is
linear in the speaker embedding, and a vocoder. They convert voices by nearest neighbours
([kNN-VC](https://arxiv.org/abs/2305.18975)), and show what the Eta model does to a recording.

## Use

`OWNER/NAME` is this repository on the Hugging Face Hub, or the folder of a copy.

    etaflow convert SOURCE.wav TARGET.wav -o OUT.wav --bundle OWNER/NAME
    etaflow analyze RECORDING.wav -o FOLDER --bundle OWNER/NAME

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
| `eta` | Eta model {components} | fitted in this run | on {weights} models |
| `vocoder` | HiFi-GAN, the weights of step {step} | trained in this run | on {weights} models |

Features are those of layer {layer}; waveforms are {normalized} zero mean and unit variance first.

## What it was made from

The training split of:

| | Eta model | vocoder |
| --- | --- | --- |
{corpora}

The Eta fit is of {utterances} utterances of {speakers} speakers, {frames} frames. It explains
{r2:.2%} of the variance of all frames of these utterances (R² over all dimensions){held_out}.
Its condition number is {condition:.4g}.

Seeds: {seeds}. The entries of the config:

```json
{entries}
```

## The run's conversion metrics

```
{metrics}
```

Values are followed by their bootstrap 95 % interval. Protocol: {protocol}.

## Licence

None is stated for these weights: whoever publishes them says which, as `license:` at the top of
this file. What is in `ssl` and `speaker` keeps the licence that it came with.
"""

WARNING = """> **Warning: untrained weights.** Conversions are noise, and the numbers below say
> that the workflow runs, not how well the method works.

"""


def copy_model(model: Path, folder: Path) -> ModelInfo:
    """Copy a model's files and its model.json, which then points to the copy."""
    info, files = read_model_info(model.parent)
    found = [path.relative_to(files) for path in files.rglob("*") if path.is_file()]
    names = [path.as_posix() for path in found if not any(p.startswith(".") for p in path.parts)]
    if info.source == "path":
        # A user's own folder may hold more, such as the weights of another framework.
        names = needed_files(names, info.architecture)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / name, folder / name)
    write_json(folder / "model.json", {**vars(info), "path": "."})
    return info


def model_row(folder: str, info: ModelInfo) -> str:
    origin = f"{info.source}, revision `{info.revision}`"
    if info.source == "package":
        origin = f"the Python package {info.architecture} {info.revision}, not in this folder"
    return f"| `{folder}` | {info.name}, {info.architecture} | {origin} | {info.weights} |"


def corpus_rows(corpora: list[tuple[str, Path]]) -> str:
    """The size of the training split of corpora, given by name and manifest, a column each."""
    tables = [read_manifest(path).query("split == 'train'") for _, path in corpora]
    rows = {
        "corpus": [f"`{name}`" for name, _ in corpora],
        "hours": [f"{(t['num_samples'] / t['sample_rate']).sum() / 3600:.2f}" for t in tables],
        "speakers": [str(t["speaker_id"].nunique()) for t in tables],
        "utterances": [str(len(t)) for t in tables],
    }
    return "\n".join(f"| {key} | {' | '.join(cells)} |" for key, cells in rows.items())


@app.command()
def main(
    config: Annotated[
        str, typer.Option(help="JSON: run, seeds, eta, vocoder (their entries), evaluation")
    ],
    ssl: Annotated[Path, typer.Option(help="model.json of the SSL encoder")],
    speaker: Annotated[Path, typer.Option(help="model.json of the speaker encoder")],
    eta: Annotated[Path, typer.Option(help="folder of the Eta model")],
    eta_manifest: Annotated[Path, typer.Option(help="manifest that it was fitted on")],
    vocoder: Annotated[Path, typer.Option(help="folder of the vocoder")],
    vocoder_manifest: Annotated[Path, typer.Option(help="manifest that it was trained on")],
    metrics: Annotated[Path, typer.Option(help="metrics.tsv of the run's conversions")],
    output: Annotated[Path, typer.Option(help="config.json of the bundle to write")],
) -> None:
    """Write a folder that `etaflow.VoiceConverter.from_pretrained` loads, and the Hub takes."""
    settings: dict[str, Any] = json.loads(config)
    trained_on = json.loads((vocoder / "config.json").read_text(encoding="utf-8"))["trained_on"]
    model = EtaModel.from_pretrained(eta)
    fitted_on = model.config
    weights = worst_weights([trained_on["weights"], fitted_on["weights"]])
    untrained = weights == "untrained"
    components = f"of {len(model.coefficients)} dimensions of the embedding"
    if model.pca:
        share = model.pca.explained_variance_ratio.sum()
        components = (
            f"of {len(model.coefficients)} principal components of the embedding, "
            f"{share:.1%} of its variance"
        )
    front_matter = ModelCardData(
        library_name="etaflow",
        pipeline_tag="audio-to-audio",
        tags=["voice-conversion", "knn-vc", "eta-wavlm", "hifi-gan", *["untrained"] * untrained],
    )
    figures = read_table(metrics, ("value", "low", "high", "n"))
    figures = figures[figures["system"].isin(settings["evaluation"]["systems"])]
    protocol = run_protocol(settings["evaluation"], figures).stated()
    corpora = [
        (settings["eta"]["corpus"], eta_manifest),
        (settings["vocoder"]["corpus"], vocoder_manifest),
    ]
    with atomic_directory(output.parent) as part:
        models = [
            model_row("ssl", copy_model(ssl, part / "ssl")),
            model_row("speaker", copy_model(speaker, part / "speaker")),
        ]
        model.save_pretrained(part / "eta")
        shutil.copytree(vocoder, part / "vocoder")
        held_out = fitted_on.get("r2_held_out")
        write_text(
            part / "README.md",
            CARD.format(
                front_matter=front_matter.to_yaml(),
                run=settings["run"],
                warning=WARNING if untrained else "",
                version=etaflow.__version__,
                models="\n".join(models),
                layer=trained_on["layer"],
                components=components,
                weights=weights,
                step=trained_on["step"],
                normalized="brought to" if trained_on["normalize"] else "not brought to",
                corpora=corpus_rows(corpora),
                utterances=fitted_on["utterances"],
                speakers=fitted_on["speakers"],
                frames=fitted_on["frames"],
                r2=fitted_on["r2"],
                held_out=(
                    "" if held_out is None else f", and {held_out:.2%} of the corpus's test split"
                ),
                condition=fitted_on["condition_number"],
                seeds=", ".join(f"{name} {seed}" for name, seed in settings["seeds"].items()),
                entries=json.dumps(
                    {name: settings[name] for name in ("eta", "vocoder")}, indent=2, sort_keys=True
                ),
                metrics=format_metrics_table(figures),
                protocol="; ".join(f"{name}: {words}" for name, words in protocol.items()),
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
            },
        )


if __name__ == "__main__":
    app()

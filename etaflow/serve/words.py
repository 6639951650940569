"""What the page says of a bundle, as HTML and Markdown."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from etaflow.bundles import NAMES, SEPARATOR, VERIFIER
from etaflow.evaluation import separation, verification
from etaflow.evaluation.tables import METRIC_NOTES, in_order
from etaflow.pages.base import figures_table, legend
from etaflow.serve.bundle import ServedBundle
from etaflow.serve.messages import Refused

DOES = {
    "convert": "converts voices",
    "verify": "verifies speakers",
    "separate": "separates speakers",
}
WARNINGS = {
    "convert": "conversions are noise",
    "verify": "decisions say nothing about speakers",
    "separate": "separated signals are noise",
}
# How a bundle comes to have the model of a task.
MISSING = {
    "verify": "With <code>verifier: true</code> in the config's <code>bundle</code>, a run whose "
    "<code>verification</code> names a <code>verifier</code> puts it into the bundle's folder "
    f"<code>{VERIFIER}</code>.",
    "separate": "With <code>separator: NAME</code> in the config's <code>bundle</code>, a run puts "
    f"that separator into the bundle's folder <code>{SEPARATOR}</code>.",
}
TABLES: dict[str, tuple[str, Mapping[str, str]]] = {
    "conversion": ("Voice conversion", METRIC_NOTES),
    "verification": ("Speaker verification", verification.NOTES),
    "separation": ("Source separation", separation.NOTES),
}


def heading(bundle: ServedBundle) -> str:
    """What is served, what it was trained on, and whether it can be trusted."""
    tasks = [words for task, words in DOES.items() if task in bundle.weights]
    untrained = [
        words for task, words in WARNINGS.items() if bundle.weights.get(task) == "untrained"
    ]
    lines = [
        f"<h1>etaflow: the run <q>{html.escape(bundle.run)}</q></h1>",
        f"<p>It {', '.join(tasks)}. {html.escape(trained_on(bundle))}</p>",
    ]
    if untrained:
        lines.append(
            '<p class="warning"><strong>Warning: untrained weights.</strong> '
            f"With these models {' and '.join(untrained)}: they show that the server works, and "
            "not how well the methods do.</p>"
        )
    return "\n".join(lines)


def trained_on(bundle: ServedBundle) -> str:
    """What a bundle was trained on, in sentences; nothing of one that does not say."""
    sentences = []
    if bundle.trained_on is not None:
        models: dict[str, list[str]] = {}
        for part, name in NAMES.items():
            for facts in bundle.trained_on.get(part, ()):
                licence = f" ({facts['licence']})" if facts["licence"] else ""
                models.setdefault(
                    f"the corpus {facts['corpus']}, {facts['hours']:.2f} h, {facts['utterances']} "
                    f"utterances of {facts['speakers']} speakers{licence}",
                    [],
                ).append(name)
        sentences = [f"{' and '.join(names)}: trained on {of}." for of, names in models.items()]
        if not sentences:
            sentences = ["Its models were not trained in this run; the tab Run says where from."]
    if "verify" in bundle.weights:
        sentences.append(f"Verifier: its threshold was set on {threshold_of(verifier(bundle))}.")
    return " ".join(sentences)


def verifier(bundle: ServedBundle) -> dict[str, Any]:
    """What the bundle's verifier was calibrated, or its threshold set, on."""
    path = bundle.folder / VERIFIER / "verifier.json"
    trials: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return trials


def threshold_of(trials: Mapping[str, Any]) -> str:
    """The trials that a threshold was set on."""
    return (
        f"{trials['targets']} target and {trials['nontargets']} non-target trials of the list "
        f"{trials['name']} (corpora: {', '.join(trials['corpora'])})"
    )


def missing(task: str) -> str:
    """That the bundle cannot do a task, and how one that can is made."""
    return (
        f'<p class="status"><strong>This bundle has no model to {task} with.</strong></p>'
        f"<p>{MISSING[task]}</p>"
    )


def busy(doing: str) -> str:
    """That something is being done."""
    return f'<p class="status">{html.escape(doing)} …</p>'


def done(what: str) -> str:
    """That it was done."""
    return f'<p class="status">{html.escape(what)}</p>'


def refusal(error: Refused) -> str:
    """That it was not done, and why."""
    return (
        f'<p class="status refused"><strong>Not done:</strong> {html.escape(str(error.detail))}</p>'
    )


def decision(said: Mapping[str, Any]) -> str:
    """What `Service.verify` found."""
    words = "Same speaker" if said["same_speaker"] else "Different speakers"
    sign, side = ("✓", "at or above") if said["same_speaker"] else ("✗", "below")
    trials = said["trials"]
    return (
        f'<p class="decision"><span aria-hidden="true">{sign}</span> {words}</p>'
        f"<p>The score {said['score']:.4f} is {side} the threshold {said['threshold']:.4f}.</p>"
        "<dl>"
        f"<dt>Score</dt><dd>{said['score']:.4f}</dd>"
        f"<dt>Threshold</dt><dd>{said['threshold']:.4f}</dd>"
        f"<dt>Unit</dt><dd>{html.escape(said['unit'])}</dd>"
        f"<dt>System</dt><dd>{html.escape(said['system'])}</dd>"
        f"<dt>Threshold set on</dt><dd>{html.escape(threshold_of(trials))}; equal error rate on "
        f"{html.escape(trials['eer_trials'])} {trials['eer']:.2f} %</dd></dl>"
        "<p>A threshold suits recordings like those that it was set on. It tells nothing of "
        "copied, converted or synthetic voices.</p>"
    )


def metrics(bundle: ServedBundle) -> str:
    """The run's tables, with intervals, and what each metric says."""
    if not bundle.metrics:
        return "<p>This bundle holds no tables of the run's metrics.</p>"
    parts = [
        "<p>Each cell has a value, its bootstrap 95&nbsp;% interval and the number of items.</p>"
    ]
    for name, text in bundle.metrics.items():
        title, notes = TABLES[name]
        table = text.astype({"value": float, "low": float, "high": float, "n": int})
        parts.append(f"<h2>{title}</h2>")
        on = next((key for key in ("trials", "mixtures") if key in table), None)
        blocks = table.groupby(on, sort=False) if on else [("", table)]
        for value, block in blocks:
            parts.append(_block(title, f"{on.capitalize()}: {value}" if on else "", block, notes))
        parts.append(legend(in_order(table["metric"]), notes))
    return "\n".join(parts)


def _block(title: str, of: str, table: pd.DataFrame, notes: Mapping[str, str]) -> str:
    label = html.escape(" ".join(filter(None, [title, of])))
    head = f"<h3>{html.escape(of)}</h3>" if of else ""
    grid = figures_table(table, in_order(table["metric"]), notes)
    return f'{head}<div tabindex="0" role="region" aria-label="{label}">{grid}</div>'


def card(bundle: ServedBundle) -> str:
    """The bundle's card, with its headings below the page's and links in the place of images."""
    text = re.sub(r"!\[([^\]]*)\]", r"[\1]", bundle.card)
    text = re.sub(r"^(#{1,5}) ", r"#\1 ", text, flags=re.MULTILINE)
    return text or "This bundle has no card."

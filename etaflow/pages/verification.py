"""The page of speaker verification."""

import html
from collections.abc import Mapping, Sequence

import pandas as pd

from etaflow.evaluation.verification import LISTS, NOTES, PROTOCOL, PublishedRates
from etaflow.pages.base import figures_table, legend, page, published_table, warning


def _published_table(published: Sequence[PublishedRates]) -> str:
    rows = [
        (
            each.system,
            [f"{each.rates[n]:.3f}" if n in each.rates else "" for n in LISTS],
            [html.escape(text) for text in (each.trained_on, each.scoring, each.source)],
        )
        for each in published
    ]
    heads = [f"{name}, EER %" for name in LISTS]
    return published_table(heads, ["trained on", "scores", "source"], rows)


def verification_page(
    title: str,
    metrics: pd.DataFrame,
    trials: Mapping[str, str],
    published: Sequence[PublishedRates],
    systems: Mapping[str, str],
) -> str:
    """A page with a table of systems for each list of trials, and published rates apart.

    Args:
        title: of the page.
        metrics: columns `system trials metric value low high n weights`.
        trials: of each list, in order, what it is, in words.
        published: rates of others, on lists of VoxCeleb1.
        systems: of each system, in order, how it scores, in words.

    Raises:
        ValueError: figures of a list that `trials` does not have.
    """
    unknown = sorted(set(metrics["trials"]) - set(trials))
    if unknown:
        raise ValueError(f"figures of the list {unknown[0]}, of which nothing else is known")
    names = [name for name in NOTES if name in set(metrics["metric"])]
    parts = [warning(set(metrics["weights"]))]
    for name, words in trials.items():
        table = metrics[metrics["trials"] == name]
        if table.empty:
            continue
        parts.append(f"<h2>{html.escape(name)}</h2><p class=note>{html.escape(words)}.</p>")
        parts.append(figures_table(table, names, NOTES, digits=3))
    lines = (
        f"<li><b>{html.escape(system)}</b>: {html.escape(words)}</li>"
        for system, words in systems.items()
    )
    parts.append(
        "<p class=note>Small: bootstrap 95 % interval over speakers, and the number of trials. "
        f"{html.escape(PROTOCOL)}.</p>{legend(names, NOTES)}<ul class=note>{''.join(lines)}</ul>"
        "<h2>Published elsewhere, not measured here</h2><p class=note>On lists of VoxCeleb1, by "
        "other training data and scores: not to be compared with lists of other corpora.</p>"
        f"{_published_table(published)}"
    )
    return page(title, "".join(parts))

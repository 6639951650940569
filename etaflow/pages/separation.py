"""The page of separation."""

import html
from collections.abc import Mapping, Sequence

import pandas as pd

from etaflow.evaluation.separation import BASELINE, NAMES, NOTES, PROTOCOL, PublishedScores
from etaflow.pages.base import figures_table, legend, page, published_table, warning

_COLUMNS = ("si_snri", "sdri")


def _published_table(published: Sequence[PublishedScores]) -> str:
    rows = [
        (
            each.system,
            [each.mixtures, *(str(each.figures.get(n, "")) for n in _COLUMNS)],
            [html.escape(text) for text in (each.data, each.training, each.source)],
        )
        for each in published
    ]
    heads = ["test set", *(NAMES[name] for name in _COLUMNS)]
    return published_table(heads, ["data", "training", "source"], rows)


def _in_order(table: pd.DataFrame, before: Mapping[str, str | None]) -> pd.DataFrame:
    """Separating nothing first, then the systems as `before` has them, each with the one before."""
    places = {name: place for place, name in enumerate([BASELINE, *before])}
    # A mixture stands on no model.
    weights = table["weights"].mask(table["system"] == BASELINE, "")
    ordered = table.assign(weights=weights).sort_values(
        "system", key=lambda names: names.map(places), kind="stable"
    )
    titles = {name: f"{name} (before: {other})" for name, other in before.items() if other}
    return ordered.assign(system=ordered["system"].replace(titles))


def separation_page(
    title: str,
    metrics: pd.DataFrame,
    mixtures: Mapping[str, str],
    systems: Mapping[str, str],
    before: Mapping[str, str | None],
    published: Sequence[PublishedScores],
) -> str:
    """A page with a table of systems for each set of mixtures, and published scores apart.

    Args:
        title: of the page.
        metrics: columns `system mixtures metric value low high n weights`, dB.
        mixtures: of each set, in order, what it is, in words.
        systems: of each system, how it separates, in words.
        before: of each system but the mixture itself, in order, the one it is compared with.
        published: scores of others.

    Raises:
        ValueError: figures of a set or a system of which nothing else is known.
    """
    for column, known in (("mixtures", mixtures), ("system", {BASELINE: None, **before})):
        unknown = sorted(set(metrics[column]) - set(known))
        if unknown:
            what = "the set of mixtures" if column == "mixtures" else "the system"
            raise ValueError(f"figures of {what} {unknown[0]}, of which nothing else is known")
    names = [name for name in NOTES if name in set(metrics["metric"])]
    parts = [warning(set(metrics["weights"]))]
    for name, words in mixtures.items():
        table = metrics[metrics["mixtures"] == name]
        if table.empty:
            continue
        parts.append(f"<h2>{html.escape(name)}</h2><p class=note>{html.escape(words)}.</p>")
        parts.append(figures_table(_in_order(table, before), names, NOTES, 2, NAMES))
    lines = (
        f"<li><b>{html.escape(system)}</b>: {html.escape(words)}</li>"
        for system, words in systems.items()
    )
    notes = {NAMES[name]: NOTES[name] for name in names}
    parts.append(
        "<p class=note>Small: bootstrap 95 % interval over speakers, and the number of mixtures. "
        f"{html.escape(PROTOCOL)}.</p>{legend(list(notes), notes)}"
        f"<ul class=note>{''.join(lines)}</ul>"
        "<h2>Published elsewhere, not measured here</h2><p class=note>On the test sets named, at "
        "the rates named: not to be compared with mixtures of other corpora, rates, lengths or "
        f"noise.</p>{_published_table(published)}"
    )
    return page(title, "".join(parts))

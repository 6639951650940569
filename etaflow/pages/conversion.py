"""The page of the conversions' figures."""

import html
from collections.abc import Sequence

import pandas as pd

from etaflow.evaluation.protocol import Protocol, Published
from etaflow.evaluation.tables import METRIC_NOTES, in_order
from etaflow.pages.base import figures_table, legend, page, published_table, warning


def _published_table(published: Sequence[Published], protocol: Protocol) -> str:
    names = in_order(name for each in published for name in each.figures)
    rows = []
    for each in published:
        figures = [f"{each.figures[n]:.2f}" if n in each.figures else "" for n in names]
        other, unknown = each.protocol.differences(protocol)
        differs = [f"<b>{', '.join(other)}</b>"] if other else []
        differs += [f"not known: {', '.join(unknown)}"] if unknown else []
        words = [html.escape(each.protocol.words()), "<br>".join(differs), html.escape(each.source)]
        rows.append((each.system, figures, words))
    heads = ["protocol there", "other than in this run", "source"]
    return published_table(names, heads, rows)


def metrics_page(
    title: str, metrics: pd.DataFrame, protocol: Protocol, published: Sequence[Published]
) -> str:
    """A page with one row a system and one column a metric, and published figures apart.

    Args:
        title: of the page.
        metrics: long table, columns `system metric value low high n weights`.
        protocol: that `metrics` were measured by.
        published: figures of others, shown in a table of their own with what differs.
    """
    names = in_order(metrics["metric"])
    return page(
        title,
        f"{warning(set(metrics['weights']))}{figures_table(metrics, names, METRIC_NOTES)}"
        "<p class=note>Small: bootstrap 95 % interval, and how many items a figure rests on."
        f"</p><p class=note>Protocol of this run. {html.escape(protocol.words())}.</p>"
        f"{legend(names, METRIC_NOTES)}"
        "<h2>Published elsewhere, not measured here</h2>"
        "<p class=note>By other protocols: the differences between rows may be theirs, and not "
        f"the systems'.</p>{_published_table(published, protocol)}",
    )

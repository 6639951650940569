"""The page of the conversions' figures."""

import html
from collections.abc import Sequence

import pandas as pd

from etaflow.evaluation.protocol import Protocol, Published
from etaflow.evaluation.tables import METRIC_NOTES, in_order
from etaflow.pages.base import figures_table, legend, page, warning


def _published_table(published: Sequence[Published], protocol: Protocol) -> str:
    names = in_order(name for each in published for name in each.figures)
    rows = []
    for each in published:
        figures = "".join(
            f"<td>{each.figures[n]:.2f}</td>" if n in each.figures else "<td></td>" for n in names
        )
        other, unknown = each.protocol.differences(protocol)
        differs = [f"<b>{', '.join(other)}</b>"] if other else []
        differs += [f"not known: {', '.join(unknown)}"] if unknown else []
        rows.append(
            f"<tr><th>{html.escape(each.system)}</th>{figures}"
            f"<td class=words>{html.escape(each.protocol.words())}</td>"
            f"<td class=words>{'<br>'.join(differs)}</td>"
            f"<td class=words>{html.escape(each.source)}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        '<div class="scroll"><table class="published"><tr><th>system</th>'
        f"{head}<th>protocol there</th><th>other than in this run</th><th>source</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


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

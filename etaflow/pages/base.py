"""What pages are made of."""

import html
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from etaflow.evaluation.tables import UNTRAINED

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 1.5rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; }}
td small, .note {{ color: #666; }}
th {{ min-width: 6rem; }}
th small, td small {{ display: block; font-weight: normal; color: #666; }}
td small {{ white-space: nowrap; }}
.untrained {{ color: #a33; }}
audio {{ width: 11rem; height: 2.2rem; display: block; }}
.scroll {{ overflow-x: auto; }}
h2 {{ margin-top: 2.5rem; font-size: 1.2rem; }}
.published {{ background: #f4f1ea; color: #555; font-style: italic; }}
.published td, .published th {{ padding-left: .8rem; font-weight: normal; }}
.published td.words {{ min-width: 12rem; max-width: 26rem; font-size: .85rem; }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def page(title: str, body: str) -> str:
    """A page of this title with this HTML."""
    return PAGE.format(title=html.escape(title), body=body)


def warning(weights: set[str]) -> str:
    """A sentence where untrained weights had a part."""
    return f'<p class="untrained">{UNTRAINED.capitalize()}.</p>' if "untrained" in weights else ""


def legend(names: Sequence[str], notes: Mapping[str, str]) -> str:
    """What each metric says."""
    lines = (
        f"<li><b>{html.escape(n)}</b>: {html.escape(notes[n])}</li>" for n in names if n in notes
    )
    return f"<ul class=note>{''.join(lines)}</ul>"


def published_table(
    figures: Sequence[str],
    words: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str], Sequence[str]]],
) -> str:
    """A table of what others published, set apart by its look.

    Args:
        figures: heads of the columns of figures.
        words: heads of those of words, wider and smaller.
        rows: a system, its figures as text (empty where there is none), its words as HTML.
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("system", *figures, *words))
    lines = "".join(
        f"<tr><th>{html.escape(system)}</th>"
        + "".join(f"<td>{html.escape(figure)}</td>" for figure in own)
        + "".join(f"<td class=words>{text}</td>" for text in said)
        + "</tr>"
        for system, own, said in rows
    )
    return f'<div class="scroll"><table class="published"><tr>{head}</tr>{lines}</table></div>'


def figures_table(
    metrics: pd.DataFrame,
    names: Sequence[str],
    notes: Mapping[str, str],
    digits: int = 2,
    heads: Mapping[str, str] | None = None,
) -> str:
    """A row a system, a column a metric, in each cell value, interval and number of items.

    Args:
        metrics: columns `system metric value low high n weights`; weights are empty where no
            model had a part.
        names: of the metrics, in order.
        notes: what each metric says.
        digits: behind the decimal point.
        heads: what stands above the column of a metric, where it is not its name.
    """
    head = "".join(
        f'<th title="{html.escape(notes.get(n, ""))}">{html.escape((heads or {}).get(n, n))}</th>'
        for n in names
    )
    rows = []
    for system, table in metrics.groupby("system", sort=False):
        by_name = table.set_index("metric")
        label = html.escape(str(system))
        for weight in sorted(set(table["weights"]) - {""}):
            kind = ' class="untrained"' if weight == "untrained" else ""
            label += f"<small{kind}>{weight} weights</small>"
        cells = []
        for name in names:
            if name not in by_name.index:
                cells.append("<td></td>")
                continue
            row = by_name.loc[name].to_dict()
            mark = ' class="untrained"' if row["weights"] == "untrained" else ""
            flag = ", untrained" if row["weights"] == "untrained" else ""
            low, high = (f"{row[bound]:.{digits}f}" for bound in ("low", "high"))
            cells.append(
                f"<td{mark}>{row['value']:.{digits}f}<small>{low} to {high}</small>"
                f"<small>n = {int(row['n'])}{flag}</small></td>"
            )
        rows.append(f"<tr><th>{label}</th>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><tr><th>system</th>{head}</tr>{"".join(rows)}</table></div>'

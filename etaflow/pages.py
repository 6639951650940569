"""Pages that stand in the report: HTML that needs no other file."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import pandas as pd
import soundfile

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.evaluation.protocol import Protocol, Published
from etaflow.evaluation.tables import METRIC_NOTES, UNTRAINED, in_order

_PAGE = """<!doctype html>
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


def _page(title: str, body: str) -> str:
    return _PAGE.format(title=html.escape(title), body=body)


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
    notes = METRIC_NOTES
    names = in_order(metrics["metric"])
    head = "".join(
        f'<th title="{html.escape(notes.get(n, ""))}">{html.escape(n)}</th>' for n in names
    )
    rows = []
    for system, table in metrics.groupby("system", sort=False):
        by_name = table.set_index("metric")
        weights = set(table["weights"])
        label = html.escape(str(system))
        for weight in sorted(weights):
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
            cells.append(
                f"<td{mark}>{row['value']:.2f}<small>{row['low']:.2f} to {row['high']:.2f}</small>"
                f"<small>n = {int(row['n'])}{flag}</small></td>"
            )
        rows.append(f"<tr><th>{label}</th>{''.join(cells)}</tr>")
    legend = "".join(
        f"<li><b>{html.escape(n)}</b>: {html.escape(notes[n])}</li>" for n in names if n in notes
    )
    warning = (
        f'<p class="untrained">{UNTRAINED.capitalize()}.</p>'
        if "untrained" in set(metrics["weights"])
        else ""
    )
    return _page(
        title,
        f'{warning}<div class="scroll"><table><tr><th>system</th>{head}</tr>{"".join(rows)}</table>'
        f"</div><p class=note>Small: bootstrap 95 % interval, and how many items a figure rests on."
        f"</p><p class=note>Protocol of this run. {html.escape(protocol.words())}.</p>"
        f"<ul class=note>{legend}</ul>"
        "<h2>Published elsewhere, not measured here</h2>"
        "<p class=note>By other protocols: the differences between rows may be theirs, and not "
        f"the systems'.</p>{_published_table(published, protocol)}",
    )


def _player(waveform: Waveform) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def listening_page(
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, Waveform]]],
    columns: Sequence[str],
    note: str,
) -> str:
    """A page with audio players that needs no other file.

    Args:
        title: of the page.
        rows: one a pair: its title, what is said, and the 16 kHz waveform of each column.
        columns: names of the columns, in order.
        note: stands above the table.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for heading, text, waveforms in rows:
        cells = "".join(
            f"<td>{_player(waveforms[column]) if column in waveforms else ''}</td>"
            for column in columns
        )
        lines.append(
            f"<tr><th>{html.escape(heading)}<small>{html.escape(text)}</small></th>{cells}</tr>"
        )
    return _page(
        title,
        f"<p class=note>{html.escape(note)}</p><div class=scroll><table><tr><th>pair</th>{head}"
        f"</tr>{''.join(lines)}</table></div>",
    )


PROBES = {
    ("speaker", "utterance"): "speaker, from utterance means",
    ("speaker", "frame"): "speaker, from single frames",
    ("content", "phone"): "phone, from segment means",
    ("content", "word"): "word, from segment means",
}


def probe_page(title: str, probes: Mapping[str, pd.DataFrame]) -> str:
    """What a linear probe finds in the features, before and after the speaker is removed.

    Args:
        title: of the page.
        probes: of each Eta model, by name, the table that `probe_speakers` writes.
    """
    rows = []
    untrained = False
    for name, table in probes.items():
        for (probe, unit), lines in table.groupby(["probe", "unit"], sort=False):
            cells = []
            for features in ("raw", "eta"):
                found = lines[lines["features"] == features]
                if found.empty:
                    cells.append("<td></td>")
                    continue
                row = found.iloc[0]
                untrained |= row["weights"] == "untrained"
                cells.append(
                    f"<td>{row['accuracy']:.1f}<small>{row['low']:.1f} to {row['high']:.1f}"
                    f"</small></td>"
                )
            row = lines.iloc[0]
            seen = int(row["speakers_in_fit"])
            flag = (
                f'<small class="untrained">{seen} of the speakers in the fit</small>'
                if seen
                else ""
            )
            rows.append(
                f"<tr><th>{html.escape(name)}<small>{html.escape(row['weights'])} weights</small>"
                f"</th><td>{PROBES[str(probe), str(unit)]}</td>{''.join(cells)}"
                f"<td>{row['chance']:.1f}</td><td>{row['majority']:.1f}</td>"
                f"<td>{int(row['classes'])}</td>"
                f"<td>{int(row['n'])}<small>of {int(row['utterances'])} utterances</small>"
                f"{flag}</td></tr>"
            )
    warning = f'<p class="untrained">{UNTRAINED.capitalize()}.</p>' if untrained else ""
    heads = ("Eta model", "probe", "raw, %", "η, %", "chance, %", "majority, %", "classes", "items")
    return _page(
        title,
        f'{warning}<div class="scroll"><table><tr>{"".join(f"<th>{h}</th>" for h in heads)}</tr>'
        f"{''.join(rows)}</table></div><p class=note>Accuracy of a linear classifier, "
        "cross-validated in folds that never part an utterance. "
        "Small: bootstrap 95 % interval over utterances. Speakers should become harder to tell, "
        "phones and words should not. What the data do not allow has no row.</p>",
    )

"""The page of the probes."""

import html
from collections.abc import Mapping

import pandas as pd

from etaflow.evaluation.tables import UNTRAINED
from etaflow.pages.base import page

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
    return page(
        title,
        f'{warning}<div class="scroll"><table><tr>{"".join(f"<th>{h}</th>" for h in heads)}</tr>'
        f"{''.join(rows)}</table></div><p class=note>Accuracy of a linear classifier, "
        "cross-validated in folds that never part an utterance. "
        "Small: bootstrap 95 % interval over utterances. Speakers should become harder to tell, "
        "phones and words should not. What the data do not allow has no row.</p>",
    )

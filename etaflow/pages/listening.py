"""Pages to listen to."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.pages.base import page


@dataclass(frozen=True)
class Cell:
    """Players below one another, each with a line above it, and a line at the top; both plain."""

    sounds: Sequence[tuple[str, Waveform]]
    text: str = ""


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>" if text else ""


def _player(waveform: Waveform, sample_rate: int) -> str:
    # FLAC is of integers: samples beyond 1 would clip.
    within = waveform / max(1.0, float(np.abs(waveform).max(initial=0)))
    buffer = io.BytesIO()
    soundfile.write(buffer, within, sample_rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def listening_page(
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, Cell]]],
    columns: Sequence[str],
    note: str,
    sample_rate: int = SAMPLE_RATE,
    corner: str = "pair",
) -> str:
    """A page with audio players that needs no other file.

    A waveform that goes beyond 1 is scaled down to a peak of 1, for itself.

    Args:
        title: of the page.
        rows: one a pair or a mixture: its title, what there is to say of it, and the cells of its
            columns, of which some may be missing.
        columns: names of the columns, in order.
        note: stands above the table.
        sample_rate: of all waveforms, Hz.
        corner: what a row is.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for heading, text, cells in rows:
        filled = "".join(
            f"<td>{_content(cells[column], sample_rate) if column in cells else ''}</td>"
            for column in columns
        )
        lines.append(
            f"<tr><th>{html.escape(heading)}<small>{html.escape(text)}</small></th>{filled}</tr>"
        )
    return page(
        title,
        f"<p class=note>{html.escape(note)}</p><div class=scroll><table>"
        f"<tr><th>{html.escape(corner)}</th>{head}</tr>{''.join(lines)}</table></div>",
    )


def _content(cell: Cell, sample_rate: int) -> str:
    players = (_small(words) + _player(waveform, sample_rate) for words, waveform in cell.sounds)
    return _small(cell.text) + "".join(players)

"""Render a page of separated mixtures to listen to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from etaflow.atomic import write_text
from etaflow.audio import AudioError, Waveform, file_checksum, read_audio
from etaflow.figures.base import labelled
from etaflow.manifest import read_table
from etaflow.pages.listening import Cell, listening_page
from etaflow.script import new_app
from etaflow.separation.listening import at_level_of, best_and_worst, within_range
from etaflow.separation.score_table import mixture_means, read_scores
from etaflow.separation.tables import num_sources, read_mixtures

app = new_app()


def _read(row: "pd.Series[str]", part: str, sample_rate: int) -> Waveform:
    path = Path(row[f"{part}_path"])
    if file_checksum(path) != row[f"{part}_checksum"]:
        raise AudioError(path, "changed since it was written; run its rule again")
    return read_audio(path, sample_rate)


def _cells(
    mixture: "pd.Series[str]",
    sources: int,
    scores: Mapping[str, pd.DataFrame],
    separated: Mapping[str, pd.DataFrame],
) -> dict[str, Cell]:
    """The cells of a row: the mixture, its references, and each system's estimates in order."""
    rate, name, numbers = mixture["sample_rate"], mixture.name, range(1, sources + 1)
    references = [_read(mixture, f"source_{number}", rate) for number in numbers]
    lines = {
        "mixture": [""],
        "references": [f"speaker {mixture[f'speaker_{number}']}" for number in numbers],
    }
    texts, waveforms = {}, [_read(mixture, "mixture", rate), *references]
    for system, table in scores.items():
        if name not in table.index:
            continue  # a system may have left it out
        own = table.loc[[name]].sort_values("source")
        for reference, number in zip(references, own["estimate"], strict=True):
            estimate = _read(separated[system].loc[name], f"estimate_{number}", rate)
            waveforms.append(at_level_of(estimate, reference))
        lines[system] = [f"SI-SNRi {value:.1f} dB" for value in own["si_snri"]]
        texts[system] = f"mean SI-SNRi {own['si_snri'].mean():.1f} dB"
    sounds = iter(within_range(waveforms))
    return {
        column: Cell([(line, next(sounds)) for line in above], texts.get(column, ""))
        for column, above in lines.items()
    }


@app.command()
def main(
    scores: Annotated[
        list[Path], typer.Argument(help="TSV of the set, each in its system's folder, in order")
    ],
    separated: Annotated[
        list[Path],
        typer.Option(help="separated.tsv of the set, in SYSTEM/SET; one a system, repeat"),
    ],
    mixtures: Annotated[list[Path], typer.Option(help="TSV of a shard of the mixtures; repeat")],
    metrics: Annotated[Path, typer.Option(help="figures of all systems, for their weights")],
    by: Annotated[str, typer.Option(help="the system whose best and worst are shown")],
    mixtures_shown: Annotated[int, typer.Option(help="so many best, so many worst", min=1)],
    title: Annotated[str, typer.Option(help="heading of the page")],
    output: Annotated[Path, typer.Option(help="HTML to write")],
) -> None:
    """Write mixture, references and every system's estimates, a mixture a row."""
    table = read_mixtures(mixtures)
    sources, rate = num_sources(table), int(table["sample_rate"].iloc[0])
    by_name = table.set_index("mixture_ID")
    weights = read_table(metrics).groupby("system")["weights"].first()
    found = {path.parent.name: read_scores(path).set_index("mixture_ID") for path in scores}
    audio = {path.parts[-3]: read_table(path).set_index("mixture_ID") for path in separated}
    if set(found) != set(audio) or by not in found:
        raise typer.BadParameter(
            f"scores of {', '.join(found)}, estimates of {', '.join(audio)}, the best of {by}: "
            "give scores and estimates of the same systems, that one among them"
        )
    labels = {system: labelled(system, weights[system]) for system in found}
    chosen = best_and_worst(mixture_means(found[by].reset_index()), mixtures_shown)
    rows = []
    for rank, name in chosen:
        cells = _cells(by_name.loc[name], sources, found, audio)
        said = f"{name}, {by_name.loc[name, 'length'] / rate:.1f} s"
        rows.append((rank, said, {labels.get(key, key): cell for key, cell in cells.items()}))
    note = (
        f"The mixtures with the highest and the lowest SI-SNRi of {labels[by]}: {len(rows)} of "
        f"{found[by].index.nunique()}, from the best down, at {rate / 1000:g} kHz. Estimates stand "
        "in the order of the references, by the permutation with the best SI-SNR. A system gives "
        "them no particular level: each is scaled to the level of its reference, which SI-SNR "
        "does not see. A row that would clip is turned down as a whole."
    )
    columns = ["mixture", "references", *labels.values()]
    write_text(output, listening_page(title, rows, columns, note, rate, "mixture"))


if __name__ == "__main__":
    app()

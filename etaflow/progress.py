"""Progress with rates: a bar on a terminal, a line every few seconds in a log."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class _Lines(io.TextIOBase):
    """Turns a bar's carriage returns into lines, so that a log can be read."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.last = ""

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line and line != self.last:
            self.stream.write(line + "\n")
            self.last = line
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def bar(
    total: int | None, description: str, unit: str, initial: int = 0, disable: bool = False
) -> tqdm:
    """A tqdm bar on stderr: redrawn on a terminal, a line every five seconds elsewhere."""
    if sys.stderr.isatty():
        return tqdm(
            total=total,
            desc=description,
            unit=f" {unit}",
            initial=initial,
            disable=disable,
            dynamic_ncols=True,
        )
    # Without a terminal tqdm would write thousands of updates to the log.
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        initial=initial,
        disable=disable,
        file=_Lines(sys.stderr),
        mininterval=5.0,
        ncols=100,
        bar_format="{desc}: {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]",
    )


def progress(
    items: Iterable[T],
    description: str,
    unit: str,
    total: int | None = None,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Iterate over `items` under a progress bar, on which an item counts its `size`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(total, description, unit) as shown:
        for item in items:
            yield item
            shown.update(size(item))

"""Downloads that a network broke off are tried again."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

TRIES = 5
FIRST_WAIT_SECONDS = 2.0


def file_size(file: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def keep_trying(
    download: Callable[[], None], transient: Callable[[Exception], bool], file: Path
) -> None:
    """Call `download`, which adds to `file`, until it returns.

    After an error that is `transient` it is called again, up to `TRIES` times in a row that bring
    nothing new. The wait before it is 2 s, then 4, 8 and 16. Each failed try is a line on stderr.

    Raises:
        Exception: the last error, or the first that is not transient.
    """
    tries, most = 0, file_size(file)
    while True:
        try:
            return download()
        except Exception as error:
            if not transient(error):
                raise
            if file_size(file) > most:
                tries, most = 0, file_size(file)
            tries += 1
            if tries == TRIES:
                raise
            wait = FIRST_WAIT_SECONDS * 2 ** (tries - 1)
            print(
                f"{file.name}: try {tries} of {TRIES} failed at byte {file_size(file)}: {error}; "
                f"the next is in {wait:g} s",
                file=sys.stderr,
            )
            time.sleep(wait)

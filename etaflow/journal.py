"""Many files, made entry by entry and once: what a killed run had finished is not made again.

A journal is a text file with a line of JSON for each entry that was made: its name, what it was
made of, the checksums of its files. It stays beside them for the runs to come.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from etaflow.audio import file_checksum


class Journal:
    """The entries that are there; new ones are appended within `with`."""

    def __init__(self, path: str | Path) -> None:
        """Read the last whole line of each entry; there may be no such file yet."""
        self.path = Path(path)
        self._entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(entry, dict) and {"name", "made_of", "checksums"} <= entry.keys():
                    self._entries[entry["name"]] = entry

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def find(self, name: str, made_of: str, files: Mapping[str, Path]) -> dict[str, Any] | None:
        """What `add` returned for an entry; None if it has to be made.

        Args:
            name: of the entry.
            made_of: of all that it depends on; another value makes it anew.
            files: of the entry, by what they are; one that is gone or changed makes it anew.
        """
        entry = self._entries.get(name)
        if entry and entry["made_of"] == made_of and entry["checksums"] == _checksums(files):
            return entry
        return None

    def add(
        self, name: str, made_of: str, files: Mapping[str, Path], **facts: Any
    ) -> dict[str, Any]:
        """Note an entry whose files are whole.

        Returns:
            `name`, `made_of`, `checksums` of the files, and the facts, which are JSON.
        """
        entry = {"name": name, "made_of": made_of, "checksums": _checksums(files), **facts}
        # A line that a kill cut off ends here, so that this one can be read.
        self._stream.write("\n" + json.dumps(entry) + "\n")
        self._stream.flush()
        self._entries[name] = entry
        return entry


def _checksums(files: Mapping[str, Path]) -> dict[str, str | None]:
    return {part: file_checksum(path) if path.is_file() else None for part, path in files.items()}

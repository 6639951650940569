"""Which source files a program's result depends on."""

import ast
import hashlib
from functools import cache
from pathlib import Path


def _module_file(root: Path, name: str) -> Path | None:
    """The file of module `name` under `root`, or None if it is no module there."""
    path = root.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


_CONTENT_BYTES = 1 << 20


@cache
def _imports(file: Path) -> frozenset[str]:
    """Every dotted name that a file imports, in functions too; `a.b` and `a.b.c` for c from a.b."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def source_files(script: str | Path, package: str | Path) -> list[Path]:
    """The script and every module of the package that it imports, at any remove.

    Read from the syntax tree, so nothing is executed. Importing `a.b.c` also runs the
    `__init__.py` of `a` and of `a.b`, which therefore count too.

    Args:
        script: a Python file.
        package: the package's folder; modules elsewhere are left out.

    Returns:
        The script first, then the modules in order of path.
    """
    script, package = Path(script), Path(package)
    root, found, waiting = package.parent, set[Path](), [script]
    while waiting:
        for name in _imports(waiting.pop()):
            parts = name.split(".")
            if parts[0] != package.name:
                continue
            for depth in range(1, len(parts) + 1):
                file = _module_file(root, ".".join(parts[:depth]))
                if file and file not in found:
                    found.add(file)
                    waiting.append(file)
    return [script, *sorted(found)]


def fingerprint(config: str, *files: str | Path) -> str:
    """A name for a piece of work: 16 hexadecimal digits that change with its config, data or code.

    Files up to 1 MiB count by their bytes, larger ones by size and time of change: hashing
    terabytes of features at each start would cost more than it saves.
    """
    digest = hashlib.blake2b(config.encode(), digest_size=8)
    for file in map(Path, files):
        status = file.stat()
        if status.st_size <= _CONTENT_BYTES:
            content = hashlib.blake2b(file.read_bytes()).digest()
        else:
            content = f"{status.st_size} {status.st_mtime_ns}".encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()

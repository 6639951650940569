from pathlib import Path

import pytest

from etaflow.provenance import source_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "scripts/run.py": "import json\nfrom pkg.b import thing\n",
        "pkg/__init__.py": "",
        "pkg/a.py": "def f():\n    from pkg import d\n",
        "pkg/b/__init__.py": "from pkg.b.inner import thing\n",
        "pkg/b/inner.py": "import pkg.a as alias\nthing = 1\n",
        "pkg/c.py": "import pkg.a\n",
        "pkg/d.py": "import pkg.b  # a cycle\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_module_at_any_remove_and_no_other(project: Path) -> None:
    found = source_files(project / "scripts/run.py", project / "pkg")
    assert [file.relative_to(project).as_posix() for file in found] == [
        "scripts/run.py",
        "pkg/__init__.py",
        "pkg/a.py",
        "pkg/b/__init__.py",
        "pkg/b/inner.py",
        "pkg/d.py",
    ]


def test_a_rule_does_not_depend_on_what_it_does_not_import() -> None:
    root = Path(__file__).resolve().parents[2]
    names = {
        file.relative_to(root).as_posix()
        for file in source_files(root / "scripts/fit_pca.py", root / "etaflow")
    }
    assert {"scripts/fit_pca.py", "etaflow/eta.py", "etaflow/store/reader.py"} <= names
    assert not names & {"etaflow/ssl/encoder.py", "etaflow/converter.py", "etaflow/training.py"}

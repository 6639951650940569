"""One undisturbed run that all fault tests compare with."""

from pathlib import Path

import pytest

from tests.faults.workflow import TARGETS, tiny_config
from tests.workflow_tools import snakemake


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the workflow ran without a fault; to be left as it is."""
    folder = tmp_path_factory.mktemp("undisturbed")
    snakemake(folder, tiny_config(), *TARGETS)
    return folder

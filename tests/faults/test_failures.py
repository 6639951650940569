"""A job that fails after the config changed: nothing made before passes for new."""

from pathlib import Path

import pytest

from tests.faults.workflow import TARGETS, Running, copied, end, tiny_config
from tests.workflow_tools import changed, planned

pytestmark = pytest.mark.slow


def test_a_failed_job_is_still_to_be_done(undisturbed: Path, tmp_path: Path) -> None:
    folder = copied(undisturbed, tmp_path)
    config = changed(tiny_config(), "prematch.topk", 3)
    before = planned(folder, config, *TARGETS)
    assert before["prematch"] == before["train_vocoder"] == before["convert"] == 1
    with Running(folder, config, *TARGETS) as running:
        found = running.wait_for(["prematch"])
        assert found
        end([found[1]])
        assert running.finish()[0] == 1
    assert planned(folder, config, *TARGETS) == before

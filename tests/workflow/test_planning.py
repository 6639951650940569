"""`etaflow plan` on every preset: all its jobs, offline, and nothing written."""

import re
from pathlib import Path

import pytest

from tests.planning_tools import plan
from tests.workflow_tools import ROOT, changed, load_config, planned, untrained_config

# The others are no configs of runs.
PRESETS = sorted({file.stem for file in (ROOT / "config").glob("*.yaml")} - {"schema", "serve"})


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_planned_whole(tmp_path: Path, preset: str) -> None:
    config = load_config(preset)
    folder = tmp_path / "empty"
    folder.mkdir()
    if preset in ("folder", "pretrain"):
        (tmp_path / "speech/pretraining/LibriSpeech").mkdir(parents=True)
        config["speech_dir"] = str(tmp_path / "speech")
    shown, _ = plan(folder, config, "--workflow-profile", str(ROOT / "profiles" / "workstation"))
    assert not list(folder.iterdir())
    lines = shown.splitlines()
    assert lines[0].split()[:2] == ["rule", "jobs"]
    table = lines[1 : lines.index("")]
    jobs = [int(re.split(r"\s{2,}", line)[1].replace(",", "")) for line in table]
    total = re.search(r"^in all: ([\d,]+) jobs$", shown, re.MULTILINE)
    assert total is not None
    assert sum(jobs) == int(total[1].replace(",", ""))
    if preset == "folder":
        assert "unknown until `snakemake manifests`" in shown
    if preset == "librispeech":
        rows = {line.split("  ")[0]: line for line in table}
        # 960.9 h and 5.4 h of test-clean; 50 frames a second of 1,024 values of 2 bytes.
        features = rows["dump_features wavlm-large layer 15 float32"]
        assert pytest.approx(356, abs=0.5) == 966.3 * 3600 * 50 * 1024 * 2 / 1e9
        assert re.search(r"\b68 .* 212 h CPU, GPU not measured +356 GB", features)
        # 5 sources of each of 40 speakers, in 39 other voices, of 5.4 h by 2,703.
        converted = rows["convert knn hifigan channels 512 kernels 3,7,11"]
        assert re.search(r"\b8  +16 h of speech +32 h CPU", converted)
        # Every rate that is shipped for the networks of this preset is found.
        assert sum(line.endswith("[1]") for line in table) == 7
    if preset == "config":
        assert sum(jobs) == sum(planned(tmp_path, config).values())


def test_a_wrong_config_is_told_as_snakemake_tells_it(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    config = changed(untrained_config(), "vocoder.hifigan-tiny.steps", "many")
    shown, said = plan(folder, config, ok=False)
    assert shown == ""
    assert "vocoder.hifigan-tiny.steps = 'many'" in said
    assert "error: Snakemake cannot plan this; its message stands above" in said
    assert not list(folder.iterdir())


def test_values_of_the_command_line_count(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    config = load_config("folder")
    _, said = plan(folder, config, ok=False)
    assert "needs a value: --config speech_dir=FOLDER" in said
    more = ("--config", "run=mine", "--config", f"speech_dir={folder}")
    shown, _ = plan(folder, config, *more)
    assert "in all: 51 jobs" in shown


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    _, said = plan(folder, untrained_config(), "--profile", "none-such", ok=False)
    assert "none-such" in said
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--workflow-profile", "profiles/none-such"), "no workflow profile profiles/none-such"),
        (("--configfile", "none-such.yaml"), "no config file none-such.yaml"),
    ],
)
def test_a_file_that_is_not_there_is_an_error(
    tmp_path: Path, arguments: tuple[str, str], named: str
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    _, said = plan(folder, untrained_config(), *arguments, ok=False)
    assert said == f"error: there is {named}\n"
    assert not list(folder.iterdir())

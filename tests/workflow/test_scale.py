"""LibriSpeech-960 and VoxCeleb2 by their manifests: what is planned is shards, not utterances."""

from pathlib import Path

import pytest

from tests.planning_tools import plan
from tests.scale_tools import LIBRISPEECH, VOXCELEB2, scale_config, write_scale
from tests.workflow_tools import planned

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    write_scale(folder, scale_config())
    return folder


def rooted(folder: Path) -> dict[str, object]:
    """The config of a study whose manifests are under `folder`."""
    config = scale_config()
    for corpus, entry in config["corpora"].items():
        entry["root"] = str(folder / "audio" if corpus == "voxceleb2" else folder)
    return config


def test_jobs_are_shards_and_not_utterances(study: Path, tmp_path: Path) -> None:
    jobs = planned(study, rooted(study))
    # Nothing is listed again, and what is large is a job a shard.
    assert not [rule for rule in jobs if rule.startswith(("build_manifest", "fetch_corpus"))]
    assert jobs["dump_features"] == 64 + 16 + 4 + 4
    assert jobs["prematch"] == 16
    # ECAPA of all four corpora, the judge's of one, the trained encoder's of VoxCeleb2.
    assert jobs["embed_speakers"] == (64 + 16 + 4 + 256) + 16 + 256
    assert jobs["gather_embeddings"] == 6
    assert jobs["train_speaker_encoder"] == jobs["train_vocoder"] == jobs["make_trials"] == 1
    assert sum(jobs.values()) == 798
    # A hundredth of the utterances, and as many jobs.
    few = tmp_path / "few"
    few.mkdir()
    write_scale(few, scale_config(), (2812, 2338), (10_920, 5994))
    assert planned(few, rooted(few)) == jobs


def test_every_utterance_is_counted_in_the_plan(study: Path) -> None:
    shown, _ = plan(study, rooted(study))
    (gathered,) = [line for line in shown.splitlines() if line.startswith("gather_embeddings")]
    assert f"2,620 to {VOXCELEB2[0]:,} utterances" in gathered
    (fitted,) = [line for line in shown.splitlines() if line.startswith("fit_eta")]
    assert f"{LIBRISPEECH[0]:,}" not in fitted  # a tenth of the speakers is test
    assert "in all: 798 jobs" in shown

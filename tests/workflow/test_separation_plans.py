"""What the workflow would run for mixtures and separation, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from etaflow.corpora import librimix
from tests.workflow_tools import (
    changed,
    load_config,
    planned,
    small_separation_config,
    snakemake,
)

COMMANDS = ("--dry-run", "--printshellcmds")


def test_the_preset_plans_without_a_network(tmp_path: Path) -> None:
    config = load_config("librimix")
    jobs = planned(tmp_path, config)
    assert jobs["fetch_metadata"] == 4
    assert (jobs["fetch_noise"], jobs["fetch_model"]) == (1, 5)
    systems = [entry["mixtures"] for entry in config["separation"]["systems"].values()]
    assert jobs["separate"] == sum(map(len, systems)) == 10
    assert jobs["score_separation"] == 10 + 3  # and the mixtures themselves
    assert jobs["mix_speakers"] == 8 + 3 * 32 + 8
    assert not {"dump_features", "train_vocoder", "make_trials"} & set(jobs)
    assert not list(tmp_path.glob("res*"))


def test_names_of_tables_are_those_that_can_be_fetched() -> None:
    assert (
        tuple(
            f"libri{n}mix_{subset}"
            for n in (2, 3)
            for subset in ("train-clean-360", "train-clean-100", "dev-clean", "test-clean")
        )
        == librimix.METADATA
    )


def test_clean_mixtures_of_published_tables_need_no_noise(tmp_path: Path) -> None:
    config = load_config("librimix")
    output = snakemake(tmp_path, config, "mixtures", *COMMANDS)
    lines = [line for line in output.splitlines() if "--metadata results/" in line]
    noisy = [line for line in lines if '"kind": "both"' in line]
    assert len(noisy) == 96
    assert all("--noise resources/noise/wham/wham_noise" in line for line in noisy)
    assert not any("--noise" in line for line in lines if line not in noisy)
    for name in ("libri2mix", "libri3mix"):
        config["mixtures"][name]["noise"] = None
    config["separation"]["mixtures"].remove("libri2mix-noisy")
    for entry in config["separation"]["systems"].values():
        entry["mixtures"] = [name for name in entry["mixtures"] if name != "libri2mix-noisy"]
    del config["separation"]["systems"]["sepformer-libri2mix-tuned"]
    del config["mixtures"]["libri2mix-noisy"], config["separators"]
    assert "fetch_noise" not in planned(tmp_path, config)


def test_a_part_is_drawn_of_what_it_depends_on(tmp_path: Path) -> None:
    config = small_separation_config()
    output = snakemake(tmp_path, config, "mixtures", *COMMANDS)
    draws = [line for line in output.splitlines() if "draw_mixtures.py --config" in line]
    assert len(draws) == 6
    (test,) = [line for line in draws if "mini-clean/test" in line]
    assert """'{"counts": {"test": 4}, "seed": 0, "speakers": 2}'""" in test
    (train,) = [line for line in draws if "mini-clean/train" in line]
    assert '"counts": {"train": 6}' in train
    assert '"validation_speakers": 2' in train


def test_a_fine_tuned_separator_starts_from_the_other(tmp_path: Path) -> None:
    output = snakemake(tmp_path, small_separation_config(), *COMMANDS)
    (tuned,) = [line for line in output.splitlines() if "separators/sepformer-tuned " in line]
    assert "--model results/separation/separators/sepformer/model.json" in tuned
    scored = [line for line in output.splitlines() if "--system sepformer-tuned --mix" in line]
    assert len(scored) == 2
    for line in scored:
        assert "--separator results/separation/separators/sepformer-tuned/config.json" in line
        assert "--before results/separation/separation/sepformer/mini-" in line
    (page,) = [line for line in output.splitlines() if "render_separation.py results" in line]
    assert '"origin": null, "mixtures_trained_on": ["mini-clean", "mini-noisy"]' in page


def test_a_trained_separator_of_another_run_says_who_was_in_its_training(tmp_path: Path) -> None:
    config = small_separation_config()
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.json", "separator.safetensors"):
        (folder / name).write_text("")
    entry = {"source": "path", "architecture": "etaflow-separator", "path": "mine"}
    config["models"]["mine"] = entry | {"weights": "trained"}
    config["separation"]["systems"]["mine"] = {"separator": "mine", "resample": True}
    output = snakemake(tmp_path, config, *COMMANDS)
    (scored,) = [
        line for line in output.splitlines() if "--system mine --mixtures-name mini-clean" in line
    ]
    assert "--separator mine/config.json" in scored
    lines = [line for line in output.splitlines() if "--system mine --config" in line]
    assert len(lines) == 2
    assert all("""--config '{"resample": true}'""" in line for line in lines)
    (page,) = [line for line in output.splitlines() if "render_separation.py results" in line]
    assert '"origin": "mine", "mixtures_trained_on": []' in page


def test_paths_may_have_spaces(tmp_path: Path) -> None:
    config = small_separation_config()
    for name in ("my noise", "my model"):
        (tmp_path / name).mkdir()
    for name in ("config.json", "separator.safetensors"):
        (tmp_path / "my model" / name).write_text("")
    (tmp_path / "my table.csv").write_text("")
    published = {"metadata": {"test": ["my table.csv"]}, "noise": {"folder": "my noise"}}
    drawn = config["mixtures"]["mini-noisy"]
    drawn["noise"] = {"folder": "my noise"}
    kept = ("corpus", "speakers", "sample_rate", "mode", "kind", "format", "shards")
    config["mixtures"]["published"] = {key: drawn[key] for key in kept} | published
    entry = {"source": "path", "architecture": "etaflow-separator", "path": "my model"}
    config["models"]["mine"] = entry | {"weights": "trained"}
    config["separation"]["mixtures"].append("published")
    config["separation"]["systems"]["mine"] = {"separator": "mine"}
    output = snakemake(tmp_path, config, *COMMANDS)
    commands = [line for line in output.splitlines() if "python " in line and "/scripts/" in line]
    for option, count in (
        ("--noise 'my noise'", 3 + 6 + 2),
        ("--metadata 'my table.csv'", 1),
        ("--separator 'my model/config.json'", 3),
    ):
        assert sum(option in line for line in commands) == count, option


NETWORK = "separators.sepformer.network"
REFUSED: list[tuple[str, Any, str]] = [
    ("mixtures.mini-clean.corpus", "x", "mixtures.mini-clean.corpus = 'x': not in `corpora`"),
    ("mixtures.mini-clean.noise", {"folder": "no"}, "noise.folder = 'no': there is no such folder"),
    ("mixtures.mini-clean.sample_rate", 11_025, "11025 is not one of [8000, 16000]"),
    ("corpora.mini-voices.split.by", "utterance", "speakers of 'mini-voices' are in both its spl"),
    ("corpora.mini-voices.split.test_fraction", 0, "'mini-voices' has no test utterances"),
    ("mixtures.mini-clean.counts.validation", ..., "has no part 'validation'"),
    ("mixtures.mini-noisy.counts.test", ..., "separation.mixtures: 'mini-noisy' has no part 'te"),
    ("separators.sepformer.mixtures", "x", "separators.sepformer.mixtures = 'x': not in `mixt"),
    (f"{NETWORK}.speakers", 3, "'sepformer' separates 3 speakers, 'mini-clean' has 2"),
    ("mixtures.mini-clean.kind", "single", "'sepformer' separates 2 speakers, 'mini-clean' has 1"),
    (f"{NETWORK}.sample_rate", 16_000, "'sepformer' is for 16000 Hz, 'mini-clean' has 8000 Hz"),
    (f"{NETWORK}.kind", "dprnn", "network.kind = 'dprnn': allowed are sepformer, conv-tasnet"),
    (f"{NETWORK}.chunk", 25, "25 is not a multiple of 2"),
    (NETWORK, {"pretrained": "x"}, "separators.sepformer.network.pretrained = 'x': not in `mod"),
    (NETWORK, {"pretrained": "sepformer-tuned"}, "from sepformer: none of them comes first"),
    ("separators.sepformer.trained", {"blocks": 1}, "sepformer.trained: the network is new"),
    ("separators.sepformer.trained", "encoder", "separators.sepformer.trained"),
    ("separation.mixtures", ["mini-clean", "x"], "separation.mixtures = 'x': not in `mixtures`"),
    ("separation.systems.mixture", {"separator": "sepformer"}, "the mixtures' own scores"),
    ("separation.systems.sepformer.separator", "x", "sepformer.separator = 'x': not in `models`"),
    ("separation.systems.sepformer.before", "x", "sepformer.before = 'x': not in `separation.sy"),
    ("separation.systems.sepformer.before", "sepformer", "is this system itself"),
    ("separation.systems.sepformer.before", "sepformer-tuned", "after sepformer: none of them co"),
    ("mixtures.mini-clean.kind", "single", "'sepformer' separates 2 speakers, 'mini-clean' has 1"),
    ("mixtures.mini-clean.shards", 3, "mini-clean.counts.validation = 2: fewer than `shards`, 3"),
    ("separators.sepformer.validation_mixtures", 3, "'mini-clean' has 2; null takes all"),
    ("separators.sepformer-tuned.trained.blocks", 3, "trained.blocks = 3: the network has 2"),
    ("separation.systems.sepformer.mixtures", ["x"], "'x' is none of `separation.mixtures`"),
    ("separation.systems.sepformer.mixtures", ["mini-noisy"], "does not separate mini-clean"),
]


@pytest.mark.parametrize(("key", "value", "reason"), REFUSED, ids=[key for key, *_ in REFUSED])
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    output = snakemake(
        tmp_path, changed(small_separation_config(), key, value), "--dry-run", ok=False
    )
    assert "the config is wrong" in output
    assert reason in output


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("mixtures.libri2mix.metadata.test", ["libri9mix"], "'libri9mix': no such file, and none"),
        ("mixtures.libri2mix-noisy.noise", None, "mixtures of kind 'both' have noise"),
        ("mixtures.libri2mix-noisy.metadata.train", ..., "has no part 'train'"),
        ("separators.sepformer-libri2mix", "copy", "`models` or `encoders` has that name, too"),
    ],
)
def test_published_mixtures_that_cannot_be_are_refused(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    config = load_config("librimix")
    if value == "copy":
        value = config["separators"]["sepformer-libri2mix-tuned"]
    assert reason in snakemake(tmp_path, changed(config, key, value), "--dry-run", ok=False)

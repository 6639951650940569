"""Training a separator, on speakers that a small network can tell apart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from etaflow.audio import file_checksum, read_audio, write_lossless
from etaflow.metrics import signals
from etaflow.schedule import rate
from etaflow.separation.crops import MixtureFiles
from etaflow.separation.network import Separator
from etaflow.separation.networks import create_separator
from etaflow.separation.separate import separate
from etaflow.separation.tables import read_mixtures
from etaflow.separation.task import LISTENED, Validation, freeze_for
from etaflow.training import TrainingError
from tests.separation_tools import SETTINGS
from tests.separation_training_tools import (
    NETWORK,
    RATE,
    make_mixtures,
    make_task,
    run_task,
)
from tests.training_tools import equal

pytestmark = pytest.mark.usefixtures("one_thread")
PARTS = ["encoder", "bottleneck", "first block", "second block", "ends", "decoder"]


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("mixtures")
    own = make_mixtures(folder / "train", [(0, 1), (3, 2), (4, 1), (5, 0)], noise=True)
    other = make_mixtures(folder / "validation", [(6, 7), (9, 8)], noise=True, sizes=[2_400, 3_000])
    return read_mixtures([own]), read_mixtures([other])


@pytest.mark.parametrize("dynamic", [False, True])
def test_training_separates_speakers_it_never_heard(
    tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, dynamic: bool
) -> None:
    history = run_task(make_task(*tables, dynamic=dynamic), tmp_path)
    found = {
        name: [value for _, metric, value in history if metric == f"valid/{name}"]
        for name in ("loss", "si_snr", "si_snri")
    }
    assert found["loss"] == pytest.approx([-value for value in found["si_snr"]])
    # What separating nothing gets is the same each time.
    baselines = np.subtract(found["si_snr"], found["si_snri"])
    np.testing.assert_allclose(baselines, baselines[0], atol=1e-6)
    assert found["si_snri"][0] < 0.5
    assert found["si_snri"][-1] > found["si_snri"][0] + 4
    losses = [value for _, metric, value in history if metric == "train/loss"]
    assert losses[-1] < losses[0] - 2


def test_validation_by_hand(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    torch.manual_seed(0)
    network = create_separator(NETWORK)
    table = tables[1]
    metrics, sounds = Validation(MixtureFiles(table)).measure(network)
    values, gains = [], []
    for row in table.to_dict("records"):
        mixture = read_audio(row["mixture_path"], None)
        sources = np.stack([read_audio(row[f"source_{n}_path"], None) for n in (1, 2)])
        estimates = separate(network, mixture)
        found, order = signals.pit_si_snr(estimates, sources)
        values.append(found.mean())
        gains.append(signals.si_snr_improvement(estimates, sources, mixture).mean())
        for number in (1, 2):
            sound = sounds[f"estimate_{number}/{row['mixture_ID']}"].numpy()
            estimate = estimates[order[number - 1]]
            assert np.abs(sound).max() == pytest.approx(np.abs(sources[number - 1]).max())
            np.testing.assert_allclose(
                sound / np.abs(sound).max(), estimate / np.abs(estimate).max(), atol=1e-6
            )
    assert metrics["si_snr"] == pytest.approx(np.mean(values), abs=1e-4)
    assert metrics["si_snri"] == pytest.approx(np.mean(gains), abs=1e-4)
    assert metrics["loss"] == pytest.approx(-np.mean(values), abs=1e-4)


class Later(Separator):
    """Gives the mixture itself, and the mixture seven samples later."""

    sample_rate, num_speakers, shortest, step, longest = RATE, 2, 1, 1, 40_000

    def __init__(self) -> None:
        super().__init__()
        self.layers = [torch.nn.Linear(1, 1)] * 4
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        self.check_length(mixtures.shape[1])
        self.seen.append(mixtures.shape[1])
        return torch.stack([mixtures, mixtures.roll(7, 1)], dim=1)


def test_long_mixtures_are_separated_in_chunks(tmp_path: Path) -> None:
    network = Later().eval()
    table = read_mixtures([make_mixtures(tmp_path, [(0, 1)], sizes=[90_000])])
    Validation(MixtureFiles(table)).measure(network)
    assert max(network.seen) <= 40_000
    assert len(network.seen) > 4


def test_the_loss_ends_where_si_snr_goes_on(tmp_path: Path) -> None:
    network = Later().eval()
    table = read_mixtures([make_mixtures(tmp_path, [(0, 1)], sizes=[900])])
    mixture = read_audio(table["mixture_path"][0], None)
    for number, samples in ((1, np.roll(mixture, 7)), (2, mixture)):
        path = Path(table[f"source_{number}_path"][0])
        write_lossless(path, samples, RATE)
        table.loc[0, f"source_{number}_checksum"] = file_checksum(path)
    metrics, _ = Validation(MixtureFiles(table)).measure(network)
    assert metrics["loss"] == -30
    assert metrics["si_snr"] > 60


def test_a_mixture_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    table = read_mixtures([make_mixtures(tmp_path, [(0, 1)])])
    network = create_separator(NETWORK)
    with torch.no_grad():
        next(iter(network.parameters())).fill_(torch.inf)
    with pytest.raises(ValueError, match=r"validation mixture m00: .*not finite"):
        Validation(MixtureFiles(table)).measure(network)
    path = Path(table["source_2_path"][0])
    write_lossless(path, np.zeros(3_200, np.float32), RATE)
    table.loc[0, "source_2_checksum"] = file_checksum(path)
    with pytest.raises(ValueError, match="validation mixture m00: a source is silent"):
        Validation(MixtureFiles(table)).measure(create_separator(NETWORK))


def test_there_is_something_to_listen_to(tmp_path: Path) -> None:
    table = read_mixtures([make_mixtures(tmp_path, [(0, 1)] * (LISTENED + 1))])
    validation = Validation(MixtureFiles(table))
    names = [f"m{index:02d}" for index in range(LISTENED)]
    parts = ("mixture", "source_1", "source_2")
    sounds = validation.recordings()
    assert list(sounds) == [f"{part}/{name}" for name in names for part in parts]
    for name, sound in sounds.items():
        path = table.set_index("mixture_ID").loc[name[-3:], f"{name[:-4]}_path"]
        np.testing.assert_array_equal(sound.numpy(), read_audio(path, None))
    _, estimates = validation.measure(create_separator(NETWORK))
    assert set(estimates) == {f"estimate_{n}/{name}" for n in (1, 2) for name in names}


def test_a_killed_training_ends_with_the_same_bits(
    tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    options = {"steps": 8, "validate_every": 4, "checkpoint_every": 2, "ema": 0.9}
    whole, cut, resumed = (make_task(*tables, steps=8, dynamic=True) for _ in range(3))
    history = run_task(whole, tmp_path / "whole", **options)
    cut.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        run_task(cut, tmp_path / "cut", **options)
    assert run_task(resumed, tmp_path / "cut", **options) == history
    files = [tmp_path / name / "f" / "checkpoint-8.pt" for name in ("whole", "cut")]
    assert equal(*(torch.load(file, weights_only=True) for file in files))


def trained_parts(network: Separator) -> list[str]:
    """The names of the layers that are trained; the others have no gradient at all."""
    found = [{p.requires_grad for p in layer.parameters()} for layer in network.layers]
    assert all(len(each) == 1 for each in found)
    return [name for name, each in zip(PARTS, found, strict=True) if each == {True}]


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_a_part_of_the_network_is_trained(kind: str) -> None:
    assert SETTINGS[kind]["blocks"] == 2
    chosen = {
        "all": PARTS,
        "decoder": PARTS[-1:],
        1: PARTS[-3:],
        2: PARTS[-4:],
    }
    for trained, parts in chosen.items():
        network = create_separator(SETTINGS[kind])
        network.pretrained = len(network.layers)
        assert network.num_blocks == 2
        freeze_for(network, {"blocks": trained} if isinstance(trained, int) else trained)
        assert trained_parts(network) == parts
        # Every trained parameter is in a layer, and takes part.
        assert network.new_parameters() == []
        torch.manual_seed(0)
        network(torch.randn(1, 800)).square().sum().backward()
        own = network.pretrained_parameters()
        assert all(parameter.grad is not None for parameter in own)
    network = create_separator(SETTINGS[kind])
    network.pretrained = len(network.layers)
    for blocks in (0, 3):
        with pytest.raises(ValueError, match=f"{blocks} blocks to train; the network has 2"):
            freeze_for(network, {"blocks": blocks})
    for odd in ("encoder", {"layers": 1}):
        with pytest.raises(ValueError, match=r"say all, decoder, or \{blocks: n\}"):
            freeze_for(network, odd)
    new = create_separator(SETTINGS[kind])
    freeze_for(new, "all")
    for trained in ("decoder", {"blocks": 1}):
        with pytest.raises(ValueError, match="this network is new"):
            freeze_for(new, trained)


def test_layers_learn_at_their_own_rates_and_frozen_ones_not_at_all(
    tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    network = create_separator(NETWORK)
    network.pretrained = len(network.layers)
    freeze_for(network, "decoder")
    before = {name: each.clone() for name, each in network.state_dict().items()}
    task = make_task(*tables, steps=4, network=network, rates=(1e-3, 1.0))
    given: list[float] = []
    (group,) = task.optimizers["separator"].param_groups
    task.optimizers["separator"].register_step_pre_hook(
        lambda optimizer, *_: given.append(optimizer.param_groups[0]["lr"])
    )
    assert len(group["params"]) == 1
    run_task(task, tmp_path, 4, keep="last")
    assert given == pytest.approx([1e-3 * rate(step, 4, 5, "cosine") for step in range(4)])
    changed = {name for name, each in network.state_dict().items() if not each.equal(before[name])}
    assert changed == {"network.decoder.weight"}
    whole = create_separator(NETWORK)
    whole.pretrained = 2
    task = make_task(*tables, network=whole, rates=(1e-3, 1e-2))
    groups = task.optimizers["separator"].param_groups
    assert [each["lr"] for each in groups] == [1e-3, 1e-2]
    counts = [len(each["params"]) for each in groups]
    assert sum(counts) == len(list(whole.parameters()))
    assert counts[0] == 5  # of a filter bank, of a norm, and of a convolution


def test_what_does_not_fit_is_named(
    tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    fast = create_separator({**NETWORK, "sample_rate": 16_000})
    with pytest.raises(ValueError, match=r"training mixtures are at 8000 Hz, .* at 16000 Hz"):
        make_task(*tables, network=fast)
    three = create_separator({**NETWORK, "speakers": 3})
    with pytest.raises(ValueError, match=r"training mixtures have 2 speaker\(s\), .* has 3"):
        make_task(*tables, network=three)
    single = read_mixtures([make_mixtures(tmp_path, [(7,)], noise=True)])
    with pytest.raises(ValueError, match=r"validation mixtures have 1 speaker\(s\)"):
        make_task(tables[0], single)
    with pytest.raises(ValueError, match=r"a mixture of 7\.5 s; the separator takes up to 5\.0 s"):
        make_task(*tables, network=Later(), num_samples=60_000)


def test_one_speaker_and_noise_can_be_separated_too(tmp_path: Path) -> None:
    own = read_mixtures([make_mixtures(tmp_path / "a", [(0,), (2,)], noise=True)])
    other = read_mixtures([make_mixtures(tmp_path / "b", [(4,)], noise=True)])
    network = create_separator({**NETWORK, "speakers": 1})
    task = make_task(own, other, network=network, dynamic=True)
    history = run_task(task, tmp_path, 2)
    assert {name for _, name, _ in history} >= {"valid/si_snri", "train/loss"}


def test_a_loss_that_is_not_finite_names_the_mixtures(
    tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    task = make_task(*tables, rates=(1e-3, float("inf")))
    with pytest.raises(TrainingError, match=r"not finite.*Utterances of the batch: .*m0\d, m0"):
        run_task(task, tmp_path)

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from speechbrain.inference.separation import SepformerSeparation
from torchaudio.models import ConvTasNet

from etaflow.models import ModelError
from etaflow.separation.network import Separator
from etaflow.separation.networks import create_separator, load_separator, save_separator
from etaflow.separation.sepformer import SepFormer
from tests.conftest import remove_placeholders
from tests.separation_tools import HYPERPARAMETERS, SETTINGS, published_folder

remove_placeholders()


def make(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return create_separator({**SETTINGS[kind], **changes})


@pytest.fixture(params=list(SETTINGS))
def network(request: pytest.FixtureRequest) -> Separator:
    return make(request.param)


@torch.no_grad()
@pytest.mark.parametrize("more", [0, 1, 6, 7, 8, 777, 4_000])
def test_what_comes_out_is_as_long_as_what_went_in(network: Separator, more: int) -> None:
    samples = network.shortest + more
    sources = network(torch.randn(2, samples))
    assert sources.shape == (2, network.num_speakers, samples)
    assert sources.isfinite().all()


@torch.no_grad()
def test_a_mixture_is_separated_the_same_alone_and_in_company(network: Separator) -> None:
    mixtures = torch.randn(3, 2_003) * torch.tensor([[1.0], [0.1], [0.01]])
    alone = torch.cat([network(mixture[None]) for mixture in mixtures])
    torch.testing.assert_close(network(mixtures), alone, rtol=1e-4, atol=1e-6)


def test_rates_and_speakers_are_those_of_the_settings(network: Separator) -> None:
    settings = SETTINGS[network.sizes()["kind"]]
    assert network.sample_rate == settings["sample_rate"]
    assert network.num_speakers == settings["speakers"]
    assert not network.training


def test_a_mixture_that_is_too_short_is_refused(network: Separator) -> None:
    with pytest.raises(ValueError, match=f"{network.shortest - 1} samples; the separator needs"):
        network(torch.zeros(1, network.shortest - 1))


@torch.no_grad()
def test_a_sepformer_has_as_many_positions_as_it_says() -> None:
    sizes = make("sepformer", chunk=2, channels=32, blocks=1).sizes()
    sizes["masknet"]["inter_model"] |= {"use_positional_encoding": True}  # as the published do
    del sizes["reach"]
    network = SepFormer(sizes).eval()
    assert network.longest is not None
    assert network(torch.zeros(1, network.longest)).shape == (1, 2, network.longest)
    with pytest.raises(ValueError, match=r"takes up to 2\.5 s at once: separate it in chunks"):
        network(torch.zeros(1, network.longest + 1))
    # One frame more is where SpeechBrain's own module fails.
    network.longest = None
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 2_501 * 8 + 8))


def test_the_blocks_of_a_new_sepformer_start_from_different_weights() -> None:
    one, other = (dict(block.named_parameters()) for block in make("sepformer").masknet.dual_mdl)
    for name in one:
        if name.endswith("weight") and "norm" not in name:
            assert not torch.equal(one[name], other[name]), name
    again = make("sepformer").state_dict()
    assert all(
        torch.equal(value, again[key]) for key, value in make("sepformer").state_dict().items()
    )


def test_the_published_proportions() -> None:
    sizes = {"channels": 256, "blocks": 2, "layers": 8, "chunk": 250}
    with torch.device("meta"):
        network = create_separator({**SETTINGS["sepformer"], **sizes})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == 25.7  # the paper says 26 million


@torch.no_grad()
def test_a_new_sepformer_does_not_number_its_chunks() -> None:
    network = make("sepformer")
    assert network.longest is None
    torch.manual_seed(0)
    chunks = torch.randn(1, 9, 32)
    across = network.masknet.dual_mdl[0].inter_mdl
    torch.testing.assert_close(across(chunks.roll(3, 1)), across(chunks).roll(3, 1))


@torch.no_grad()
def test_a_chunk_of_a_new_sepformer_attends_to_those_in_its_reach() -> None:
    across = make("sepformer", reach=3).masknet.dual_mdl[0].inter_mdl
    torch.manual_seed(0)
    chunks = torch.randn(1, 12, 32)
    other = chunks.clone()
    other[0, 4] = torch.randn(32)
    moved = (across(other) - across(chunks)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [1 <= place <= 7 for place in range(12)]
    torch.testing.assert_close(across(chunks[:, 2:11])[:, 3:6], across(chunks)[:, 5:8])


def test_a_conv_tasnet_equals_torchaudio() -> None:
    network = make("conv-tasnet")
    torch.manual_seed(0)
    reference = ConvTasNet(3, 8, 16, 3, 4, 16, 3, 2, "relu")
    mixtures = torch.randn(2, 1_001)
    assert torch.equal(network(mixtures), reference(mixtures[:, None]))


def test_layers_are_all_of_the_network_once(network: Separator) -> None:
    listed = [id(weight) for layer in network.layers for weight in layer.parameters()]
    assert sorted(listed) == sorted(id(weight) for weight in network.parameters())


def test_layers_stand_from_input_to_output(network: Separator) -> None:
    order: list[int] = []
    for index, layer in enumerate(network.layers):
        for module in layer.modules():
            if not list(module.children()) and list(module.parameters()):
                module.register_forward_hook(lambda *_, index=index: order.append(index))
    network(torch.randn(1, 1_000))
    assert order == sorted(order)
    assert set(order) == set(range(len(network.layers)))


@pytest.mark.parametrize("trained", [0, 1, 3, None])
def test_frozen_layers_stay_as_they_are(network: Separator, trained: int | None) -> None:
    network.pretrained = count = len(network.layers)
    network.freeze(trained)
    network.train()
    if trained != 0:
        network(torch.randn(2, 1_000)).square().mean().backward()
    for index, layer in enumerate(network.layers):
        free = trained is None or index >= count - trained
        assert all(module.training == free for module in layer.modules())
        assert all((weight.grad is not None) == free for weight in layer.parameters())


@torch.no_grad()
def test_a_saved_separator_is_the_same(network: Separator, tmp_path: Path) -> None:
    info = save_separator(network, tmp_path, name="mine", weights="trained", steps=3)
    read, loaded = load_separator(tmp_path)
    assert read == info
    assert (info.architecture, info.source, len(info.revision)) == ("etaflow-separator", "run", 16)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 3
    mixtures = torch.randn(1, 1_001)
    assert torch.equal(loaded(mixtures), network(mixtures))
    assert loaded.sizes() == network.sizes()
    assert (loaded.pretrained, loaded.training) == (len(network.layers), False)
    further = create_separator({"pretrained": "mine"}, tmp_path)
    assert torch.equal(further(mixtures), network(mixtures))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm: ln": "norm: gln"},
        {"norm: ln": "norm: cln"},
        {"inter_intra: false": "inter_intra: true", "norm_before: true": "norm_before: false"},
        {"skip_around_intra: true": "skip_around_intra: false", "num_spks: 3": "num_spks: 2"},
        {"use_positional_encoding: true": "activation: gelu", "num_layers: 2": "num_layers: 3"},
    ],
)
def test_a_published_folder_equals_speechbrain(tmp_path: Path, changes: dict[str, str]) -> None:
    text = HYPERPARAMETERS
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    folder = published_folder(tmp_path / "model", text)
    reference = SepformerSeparation.from_hparams(str(folder), savedir=str(tmp_path / "saved"))
    info, network = load_separator(folder)
    assert (info.name, network.sample_rate) == ("small", 8_000)
    assert network.num_speakers == reference.hparams.num_spks
    for samples in (16, 24, 1_600, 1_607):
        mixtures = torch.randn(2, samples)
        expected = reference.separate_batch(mixtures).transpose(1, 2)
        torch.testing.assert_close(network(mixtures), expected, rtol=1e-5, atol=1e-6)
        assert expected.abs().max() > 0
    save_separator(network, tmp_path, name="copy", weights="untrained")
    assert torch.equal(load_separator(tmp_path)[1](mixtures), network(mixtures))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("num_spks: 3", "num_spks: 2", r"masknet.ckpt: conv2d.bias is \(96,\), not \(64,\)"),
        ("K: 14", "K: 15", "chunks of 15 frames; the number has to be even"),
        ("K: 14", "K: many", "masknet.K is 'many', no int"),
        ("K: 14", "Q: 14", "masknet has an unknown argument 'Q'"),
        ("  nhead: 8\n", "", "intra_model has no nhead"),
        ("nhead: 8", "nhead: 7", "no such SepFormer can be made"),
        ("stride: 8", "stride: 4", "a decoder whose filters are not the encoder's"),
        ("norm: ln", "norm: bn", "a norm 'bn'"),
        ("d_ffn: 24", "d_ffn: 25", r"pos_ffn.ffn.0.bias is \(24,\), not \(25,\)"),
        ("  num_layers: 1\n", "  num_layers: 2\n", "masknet.ckpt: missing dual_mdl.0.inter_mdl"),
        (
            "  num_layers: 2\n  d_",
            "  num_layers: 1\n  d_",
            "unknown dual_mdl.0.intra_mdl",
        ),
        ("<SBtfintra>", "<Nothing>", "intra_model refers to '<Nothing>', which is nothing"),
        ("sample_rate: 8000", "sample_rate: 8 kHz", "sample_rate is '8 kHz', no number of Hz"),
        ("sample_rate: 8000", "sample_rate: !ref <sample_rate>", "which is nothing"),
        ("!new:speechbrain.lobes.models.dual_path.Dual", "!new:os.Dual", "masknet is new:os.Dual"),
        ("modules:", "parts:", "modules refers to '<modules>', which is nothing"),
        ("  masknet: !ref <MaskNet>\n", "", "`modules` does not name encoder, masknet, decoder"),
        ("modules:", "modules: {", "hyperparams.yaml is damaged"),
    ],
)
def test_other_hyperparameters_are_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    folder = published_folder(tmp_path / "model")
    assert old in HYPERPARAMETERS
    (folder / "hyperparams.yaml").write_text(HYPERPARAMETERS.replace(old, new, 1))
    with pytest.raises(ModelError, match=problem) as raised:
        load_separator(folder)
    assert str(raised.value).startswith("small: ")


def test_nothing_that_the_hyperparameters_name_is_called(tmp_path: Path) -> None:
    folder = published_folder(tmp_path / "model")
    trap = (
        f"trap: !apply:pathlib.Path.touch [!new:pathlib.Path ['{tmp_path}/called']]\n"
        f"other: !!python/object/apply:os.mkdir ['{tmp_path}/called']\n"
    )
    harmless = trap.splitlines()[0] + "\n"
    (folder / "hyperparams.yaml").write_text(harmless + HYPERPARAMETERS)
    load_separator(folder)
    (folder / "hyperparams.yaml").write_text(trap + HYPERPARAMETERS)
    with pytest.raises(ModelError, match=r"hyperparams\.yaml is damaged"):
        load_separator(folder)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "part", ["hyperparams.yaml", "encoder.ckpt", "masknet.ckpt", "decoder.ckpt"]
)
def test_missing_and_damaged_files_are_named(tmp_path: Path, part: str) -> None:
    folder = published_folder(tmp_path / "model")
    (folder / part).write_bytes(b"\xff\x00nothing")
    with pytest.raises(ModelError, match=f"small: .*{part}"):
        load_separator(folder)
    (folder / part).unlink()
    with pytest.raises(ModelError, match=f"small: .*{part} is missing"):
        load_separator(folder)


def test_folders_of_other_models_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    save_separator(make("conv-tasnet"), tmp_path, name="mine", weights="trained")
    config = json.loads((tmp_path / "config.json").read_text())
    for sizes, problem in (
        ({**config["network"], "kind": "magic"}, "mine: no separator of kind 'magic'; there are"),
        ({"kind": "sepformer"}, "mine: .*config.json: no sizes of a network in it"),
        (
            {**config["network"], "channels": 32},
            r"mine: .*weight is \(16, 1, 8\), not \(32",
        ),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"network": sizes}))
        with pytest.raises(ModelError, match=problem):
            load_separator(tmp_path)
    info = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**info, "architecture": "wavlm"}))
    with pytest.raises(ModelError, match="mine: 'wavlm' is no separator"):
        load_separator(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        ("sepformer", {"channels": 30}, "30 channels; it has to be a multiple of 32"),
        ("sepformer", {"chunk": 5}, "chunks of 5 frames; the number has to be even"),
        ("sepformer", {"chunk": 2_502}, "up to 2500 have a position"),
        ("sepformer", {"speakers": 0}, "0 speakers"),
        ("sepformer", {"kernel": 1}, "filters of 1 samples"),
        ("conv-tasnet", {"kernel": 7}, "the kernel has to be a multiple of 2"),
        ("conv-tasnet", {"blocks": 0}, "nothing less than 1"),
    ],
)
def test_sizes_that_do_not_go_together(kind: str, changes: dict[str, int], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        make(kind, **changes)


def test_a_pretrained_separator_needs_its_folder() -> None:
    with pytest.raises(ModelError, match="mine: the folder of this separator is not given"):
        create_separator({"pretrained": "mine"})

"""SpeechBrain's time-delay networks: ECAPA-TDNN and x-vectors.

ECAPA-TDNN: Desplanques et al. 2020, arXiv 2005.07143. X-vectors: Snyder et al., ICASSP 2018; the
judge of kNN-VC's equal error rates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.nnet.CNN import Conv1d
from speechbrain.processing.features import InputNormalization
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from etaflow.models import ModelError, ModelInfo
from etaflow.speaker.network import SpeakerNetwork
from etaflow.weights import fill, read_checkpoint

XVECTOR_DILATIONS = [1, 2, 3, 1, 1]  # the one size of the recipe that weights do not tell
SCALE = 8  # of ECAPA's Res2Net blocks, which divide their channels into so many groups

State = Mapping[str, torch.Tensor]


def _no_noise(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.zeros(shape, device=device)


def _ecapa(sizes: Mapping[str, Any]) -> nn.Module:
    return ECAPA_TDNN(
        sizes["mels"],
        channels=list(sizes["channels"]),
        lin_neurons=sizes["dim"],
        attention_channels=sizes["attention"],
        se_channels=sizes["squeeze"],
    )


def _xvector(sizes: Mapping[str, Any]) -> nn.Module:
    network = Xvector(
        activation=nn.LeakyReLU,
        tdnn_blocks=len(sizes["channels"]),
        tdnn_channels=list(sizes["channels"]),
        tdnn_kernel_sizes=list(sizes["kernels"]),
        tdnn_dilations=XVECTOR_DILATIONS,
        lin_neurons=sizes["dim"],
        in_channels=sizes["mels"],
    )
    # Its pooling adds noise of up to 9e-5 to the means, and no embedding would come out twice.
    network.blocks[-2]._get_gauss_noise = _no_noise
    return network


def _ecapa_sizes(state: State) -> dict[str, Any]:
    blocks = sum(key.endswith("tdnn1.conv.conv.weight") for key in state)
    width, mels = state["blocks.0.conv.conv.weight"].shape[:2]
    return {
        "kind": "ecapa",
        "mels": mels,
        "channels": [width] * (blocks + 1) + [state["mfa.conv.conv.weight"].shape[0]],
        "attention": state["asp.tdnn.conv.conv.weight"].shape[0],
        "squeeze": state["blocks.1.se_block.conv1.conv.weight"].shape[0],
        "dim": state["fc.conv.weight"].shape[0],
    }


def _xvector_sizes(state: State) -> dict[str, Any]:
    kernels = [weight for key, weight in state.items() if key.endswith(".conv.weight")]
    (last,) = (weight for key, weight in state.items() if key.endswith(".w.weight"))
    return {
        "kind": "xvector",
        "mels": kernels[0].shape[1],
        "channels": [kernel.shape[0] for kernel in kernels],
        "kernels": [kernel.shape[2] for kernel in kernels],
        "dim": last.shape[0],
    }


_NETWORKS = {"ecapa": _ecapa, "xvector": _xvector}
_SIZES = {"ecapa": _ecapa_sizes, "xvector": _xvector_sizes}


class TDNNNetwork(SpeakerNetwork):
    """Log-mel spectrograms, each utterance's mean removed, into one of these networks."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self._sizes = dict(sizes)
        self.dim = sizes["dim"]
        self.network: Any = {"ecapa": _ecapa, "xvector": _xvector}[sizes["kind"]](sizes)
        self.features = Fbank(n_mels=sizes["mels"])
        # Not in use, but with buffers that would be saved among the weights.
        self.features.compute_deltas = self.features.context_window = None
        self.normalize = InputNormalization(norm_type="sentence", std_norm=False)
        convolutions = [m for m in self.network.modules() if isinstance(m, Conv1d)]
        for convolution in convolutions:
            if convolution.kernel_size > 1:
                convolution.register_forward_pre_hook(self._reflect)
            else:
                convolution.padding = "valid"  # "same" copies its input, to pad it by nothing
        self._margin = max(c.dilation * (c.kernel_size - 1) // 2 for c in convolutions)
        self._frames: torch.Tensor | None = None
        self.shortest = self._margin * self.features.compute_STFT.hop_length
        network: Any = self.network
        blocks = list(network.blocks)
        if sizes["kind"] == "ecapa":
            pooling = nn.ModuleList([network.asp, network.asp_bn])
            self.layers = [*blocks, network.mfa, pooling, network.fc]
        else:  # a convolution, its activation and its norm; pooling; a linear layer
            steps = [nn.ModuleList(blocks[i : i + 3]) for i in range(0, len(blocks) - 2, 3)]
            self.layers = [*steps, blocks[-1]]

    @classmethod
    def create(cls, settings: Mapping[str, Any], model: Path | None = None) -> "TDNNNetwork":
        """A new network of `channels` and `dim`, the rest in the published proportions.

        Raises:
            ModelError: the channels of an ECAPA are no multiple of 8.
        """
        kind, width, dim = settings["kind"], settings["channels"], settings["dim"]
        sizes = {"kind": kind, "channels": [width] * 4 + [3 * width], "dim": dim}
        if kind == "xvector":
            return cls(sizes | {"mels": 24, "kernels": [5, 3, 3, 1, 1]})
        if width % SCALE:
            raise ModelError(f"ecapa: {width} channels; it has to be a multiple of {SCALE}")
        inner = min(128, max(SCALE, width // 4))
        return cls(sizes | {"mels": 80, "attention": inner, "squeeze": inner})

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> "TDNNNetwork":
        """The network that has these `sizes()`, with random weights."""
        return cls(sizes)

    @classmethod
    def from_published(cls, info: ModelInfo, files: Path) -> "TDNNNetwork":
        """Read SpeechBrain's published folder without its YAML.

        `hyperparams.yaml` of such a folder can construct any Python object and calls the hub; the
        weights alone say how wide the network is, and the rest is the published recipe.

        Raises:
            ModelError: the checkpoint is missing, or none of this network.
        """
        checkpoint = files / "embedding_model.ckpt"
        state = read_checkpoint(checkpoint)
        try:
            network = cls(_SIZES[info.architecture](state))
            fill(network.network, state, checkpoint)
        except (KeyError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"{checkpoint} is no {info.architecture} of SpeechBrain's ({error})"
            ) from error
        return network

    def sizes(self) -> dict[str, Any]:
        """Widths of the layers; see `SpeakerNetwork.sizes`."""
        return dict(self._sizes)

    def _reflect(self, convolution: Conv1d, inputs: tuple[torch.Tensor]) -> torch.Tensor | None:
        """Continue each utterance by its mirror image, over the padding.

        SpeechBrain's convolutions extend their input so at its ends; in a batch they would see the
        padding of all utterances but the longest, and embeddings be up to 2 % off.
        """
        if self._frames is None:
            return None
        values = inputs[0].clone() if torch.is_grad_enabled() else inputs[0]
        by_channel = values if convolution.skip_transpose else values.transpose(1, 2)  # (B, C, T)
        rows = torch.arange(len(values), device=values.device)[:, None]
        steps = torch.arange(self._margin, device=values.device)
        after, mirrored = self._frames[:, None] + steps, self._frames[:, None] - 2 - steps
        by_channel[rows, :, after] = by_channel[rows, :, mirrored]
        return values

    @torch.no_grad()
    def _mels(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrograms (B, T, mels), without their means over time, of (B, samples)."""
        with torch.autocast(waveforms.device.type, enabled=False):
            return self.normalize(self.features(waveforms))

    def forward(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, V); see `SpeakerNetwork.forward`.

        Raises:
            ValueError: in training, the waveforms are not of one length.
        """
        if len({len(waveform) for waveform in waveforms}) == 1:
            equal = waveforms if isinstance(waveforms, torch.Tensor) else torch.stack([*waveforms])
            return self.network(self._mels(equal)).squeeze(1)
        if self.training:
            raise ValueError(
                "waveforms of different lengths in training: the batch norms would count padding"
            )
        # One waveform at a time: in a batch, padding would count in the maximum that levels
        # 80 dB below it are raised to.
        mels = [self._mels(waveform[None])[0] for waveform in waveforms]
        frames = torch.tensor([len(each) for each in mels], device=mels[0].device)
        # The longest utterance is padded too, so that all get their mirror image.
        padded = nn.functional.pad(pad_sequence(mels, batch_first=True), (0, 0, 0, self._margin))
        # A quarter of a frame less: ECAPA counts the frames below `lengths` times T, and a product
        # rounded up would count one of padding; x-vectors take the nearest integer.
        lengths = (frames - 0.25) / padded.shape[1]
        self._frames = frames
        try:
            return self.network(padded, lengths).squeeze(1)
        finally:
            self._frames = None

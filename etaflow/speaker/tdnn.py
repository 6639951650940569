"""SpeechBrain's time-delay networks: ECAPA-TDNN and x-vectors.

ECAPA-TDNN: Desplanques et al. 2020, arXiv 2005.07143. X-vectors: Snyder et al., ICASSP 2018; the
judge of kNN-VC's equal error rates.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.nnet.CNN import Conv1d
from speechbrain.processing.features import InputNormalization
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.batches import similar_lengths
from etaflow.models import ModelError, ModelInfo
from etaflow.store import Floats

# Larger batches are slower on a CPU: the system maps, and clears, their memory anew at each layer.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0
XVECTOR_DILATIONS = [1, 2, 3, 1, 1]  # the one size of the recipe that weights do not tell

State = dict[str, torch.Tensor]


def _ecapa(state: State) -> nn.Module:
    blocks = sum(key.endswith("tdnn1.conv.conv.weight") for key in state)
    width, mels = state["blocks.0.conv.conv.weight"].shape[:2]
    return ECAPA_TDNN(
        mels,
        channels=[width] * (blocks + 1) + [state["mfa.conv.conv.weight"].shape[0]],
        lin_neurons=state["fc.conv.weight"].shape[0],
        attention_channels=state["asp.tdnn.conv.conv.weight"].shape[0],
        se_channels=state["blocks.1.se_block.conv1.conv.weight"].shape[0],
    )


def _xvector(state: State) -> nn.Module:
    kernels = [weight for key, weight in state.items() if key.endswith(".conv.weight")]
    (last,) = (weight for key, weight in state.items() if key.endswith(".w.weight"))
    network = Xvector(
        activation=nn.LeakyReLU,
        tdnn_blocks=len(kernels),
        tdnn_channels=[kernel.shape[0] for kernel in kernels],
        tdnn_kernel_sizes=[kernel.shape[2] for kernel in kernels],
        tdnn_dilations=XVECTOR_DILATIONS,
        lin_neurons=last.shape[0],
        in_channels=kernels[0].shape[1],
    )
    # Its pooling adds noise of up to 9e-5 to the means, and no embedding would come out twice.
    network.blocks[-2]._get_gauss_noise = lambda shape, device: torch.zeros(shape, device=device)
    return network


NETWORKS: dict[str, Callable[[State], nn.Module]] = {"ecapa": _ecapa, "xvector": _xvector}


class TDNN:
    """SpeechBrain's published folders of these networks, read without their YAML.

    `hyperparams.yaml` of such a folder can construct any Python object and calls the hub; the
    weights alone say how wide the network is, and the rest is the published recipe: a mel
    spectrogram, each utterance's mean removed.
    """

    def __init__(self, info: ModelInfo, files: Path, device: torch.device) -> None:
        self.info, self.device = info, device
        checkpoint = files / "embedding_model.ckpt"
        if not checkpoint.is_file():
            raise ModelError(f"{info.name}: {checkpoint} is missing")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        try:
            self.network = NETWORKS[info.architecture](state)
            self.network.load_state_dict(state)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise ModelError(
                f"{info.name}: {checkpoint} is no {info.architecture} of SpeechBrain's"
            ) from error
        self.network.eval().requires_grad_(False).to(device)
        convolutions = [m for m in self.network.modules() if isinstance(m, Conv1d)]
        self.features = Fbank(n_mels=convolutions[0].in_channels).to(device)
        self.normalize = InputNormalization(norm_type="sentence", std_norm=False)
        for convolution in convolutions:
            if convolution.kernel_size > 1:
                convolution.register_forward_pre_hook(self._reflect)
        self._margin = max(c.dilation * (c.kernel_size - 1) // 2 for c in convolutions)
        self._frames = torch.empty(0)
        self.dim: int = list(self.network.parameters())[-1].shape[0]  # the last layer's bias

    def _reflect(self, convolution: Conv1d, inputs: tuple[torch.Tensor]) -> None:
        """Continue each utterance by its mirror image, over the padding.

        SpeechBrain's convolutions extend their input so at its ends; in a batch they would see the
        padding of all utterances but the longest, and embeddings be up to 2 % off.
        """
        values = inputs[0] if convolution.skip_transpose else inputs[0].transpose(1, 2)  # (B, C, T)
        rows = torch.arange(len(values), device=values.device)[:, None]
        steps = torch.arange(self._margin, device=values.device)
        after, mirrored = self._frames[:, None] + steps, self._frames[:, None] - 2 - steps
        values[rows, :, after] = values[rows, :, mirrored]

    def _mels(self, waveform: Waveform) -> torch.Tensor:
        """Log-mel spectrogram (T, mels) without its mean over time."""
        # One waveform at a time: in a batch, padding would count in the maximum that levels
        # 80 dB below it are raised to.
        mels = self.features(torch.from_numpy(waveform)[None].to(self.device))
        return self.normalize(mels)[0]

    def _embed_batch(self, waveforms: Sequence[Waveform]) -> Floats:
        mels = [self._mels(waveform) for waveform in waveforms]
        frames = torch.tensor([len(each) for each in mels], device=self.device)
        # The longest utterance is padded too, so that all get their mirror image.
        padded = nn.functional.pad(pad_sequence(mels, batch_first=True), (0, 0, 0, self._margin))
        self._frames = frames
        # A quarter of a frame less: ECAPA counts the frames below `lengths` times T, and a product
        # rounded up would count one of padding; x-vectors take the nearest integer.
        lengths = (frames - 0.25) / padded.shape[1]
        # Convolutions in TF32, PyTorch's default on a GPU, would be off by 1e-3.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.network(padded, lengths).squeeze(1).cpu().numpy()

    @torch.inference_mode()
    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, V) as the network gives them; see `SpeakerEncoder.embed`.

        Raises:
            ValueError: a waveform is shorter than 40 ms (30 for x-vectors), or an embedding is
                not finite.
        """
        shortest = self._margin * self.features.compute_STFT.hop_length
        for index, waveform in enumerate(waveforms):
            if len(waveform) < shortest:
                raise ValueError(
                    f"waveform {index} of {len(waveforms)} has {len(waveform)} samples; "
                    f"{self.info.name} needs {shortest}"
                )
        embeddings = np.empty((len(waveforms), self.dim), np.float32)
        lengths = [len(waveform) for waveform in waveforms]
        seconds = CPU_BATCH_SECONDS if self.device.type == "cpu" else GPU_BATCH_SECONDS
        for batch in similar_lengths(lengths, int(seconds * SAMPLE_RATE)):
            embeddings[batch] = self._embed_batch([waveforms[index] for index in batch])
        if not np.isfinite(embeddings).all():
            bad = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise ValueError(f"the embedding of waveform {bad} of {len(embeddings)} is not finite")
        return embeddings

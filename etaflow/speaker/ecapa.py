"""ECAPA-TDNN (Desplanques et al. 2020, arXiv 2005.07143) from SpeechBrain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.CNN import Conv1d
from speechbrain.processing.features import InputNormalization
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.batches import similar_lengths
from etaflow.models import ModelError, ModelInfo
from etaflow.store import Floats

MELS = 80
# Larger batches are slower on a CPU: the system maps, and clears, their memory anew at each layer.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0


class Ecapa:
    """SpeechBrain's published ECAPA folders, read without their YAML.

    `hyperparams.yaml` of such a folder can construct any Python object and calls the hub; the
    weights alone say how wide the network is, and the rest is the published recipe: 80 mel bands,
    each utterance's mean removed.
    """

    def __init__(self, info: ModelInfo, files: Path, device: torch.device) -> None:
        self.info, self.device = info, device
        checkpoint = files / "embedding_model.ckpt"
        if not checkpoint.is_file():
            raise ModelError(f"{info.name}: {checkpoint} is missing")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        blocks = sum(key.endswith("tdnn1.conv.conv.weight") for key in state)
        width, last = state["blocks.0.conv.conv.weight"].shape[0], state["mfa.conv.conv.weight"]
        self.dim: int = state["fc.conv.weight"].shape[0]
        self.network = ECAPA_TDNN(
            MELS,
            channels=[width] * (blocks + 1) + [last.shape[0]],
            lin_neurons=self.dim,
            attention_channels=state["asp.tdnn.conv.conv.weight"].shape[0],
            se_channels=state["blocks.1.se_block.conv1.conv.weight"].shape[0],
        )
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False).to(device)
        self.features = Fbank(n_mels=MELS).to(device)
        self.normalize = InputNormalization(norm_type="sentence", std_norm=False)
        convolutions = [
            module
            for module in self.network.modules()
            if isinstance(module, Conv1d) and module.kernel_size > 1
        ]
        for convolution in convolutions:
            convolution.register_forward_pre_hook(self._reflect)
        self._margin = max(c.dilation * (c.kernel_size - 1) // 2 for c in convolutions)
        self._frames = torch.empty(0)

    def _reflect(self, convolution: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        """Continue each utterance of (B, C, T) by its mirror image, over the padding.

        SpeechBrain's convolutions extend their input so at its ends; in a batch they would see the
        padding of all utterances but the longest, and embeddings be up to 2 % off.
        """
        (values,) = inputs
        rows = torch.arange(len(values), device=values.device)[:, None]
        steps = torch.arange(self._margin, device=values.device)
        after, mirrored = self._frames[:, None] + steps, self._frames[:, None] - 2 - steps
        values[rows, :, after] = values[rows, :, mirrored]

    def _mels(self, waveform: Waveform) -> torch.Tensor:
        """Log-mel spectrogram (T, 80) without its mean over time."""
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
        # Half a frame less: the network counts the frames below `lengths` times T, and a product
        # rounded up would count one of padding.
        lengths = (frames - 0.5) / padded.shape[1]
        # Convolutions in TF32, PyTorch's default on a GPU, would be off by 1e-3.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.network(padded, lengths).squeeze(1).cpu().numpy()

    @torch.inference_mode()
    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, V) as the network gives them; see `SpeakerEncoder.embed`.

        Raises:
            ValueError: a waveform is shorter than 40 ms, or an embedding is not finite.
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

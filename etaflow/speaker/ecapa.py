"""ECAPA-TDNN (Desplanques et al. 2020, arXiv 2005.07143) from SpeechBrain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.models import ModelError, ModelInfo
from etaflow.store import Floats

MELS = 80
MAX_BATCH_SECONDS = 120.0


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
        self.network = ECAPA_TDNN(
            MELS,
            channels=[width] * (blocks + 1) + [last.shape[0]],
            lin_neurons=state["fc.conv.weight"].shape[0],
            attention_channels=state["asp.tdnn.conv.conv.weight"].shape[0],
            se_channels=state["blocks.1.se_block.conv1.conv.weight"].shape[0],
        )
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False).to(device)
        self.features = Fbank(n_mels=MELS).to(device)
        self.normalize = InputNormalization(norm_type="sentence", std_norm=False)

    @torch.inference_mode()
    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, V) as the network gives them; see `SpeakerEncoder.embed`.

        Batches hold waveforms of one length: padding would reach the convolutions and the mean.
        """
        by_length: dict[int, list[int]] = {}
        for index, waveform in enumerate(waveforms):
            by_length.setdefault(len(waveform), []).append(index)
        rows: list[Floats] = [np.empty(0)] * len(waveforms)
        for length, indices in sorted(by_length.items()):
            size = max(1, int(MAX_BATCH_SECONDS * SAMPLE_RATE / length))
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                samples = torch.from_numpy(np.stack([waveforms[i] for i in batch])).to(self.device)
                ones = torch.ones(len(batch), device=self.device)
                mels = self.normalize(self.features(samples), ones)
                vectors = self.network(mels, ones).squeeze(1).cpu().numpy()
                for row, index in enumerate(batch):
                    rows[index] = vectors[row]
        embeddings = np.stack(rows)
        if not np.isfinite(embeddings).all():
            bad = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise ValueError(f"the embedding of waveform {bad} of {len(rows)} is not finite")
        return embeddings

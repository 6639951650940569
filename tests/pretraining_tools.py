"""Small sizes, waveforms and recordings for tests of pretraining."""

import numpy as np

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8, 8, 8],
    "conv_kernel": [10, 7, 7, 4],
    "conv_stride": [5, 4, 4, 4],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}


class Recordings:
    """Waveforms from memory, as `etaflow.waveforms.Waveforms` reads them from files."""

    def __init__(self, waveforms: dict[str, np.ndarray]) -> None:
        self.waveforms = waveforms

    def read(self, name: str) -> np.ndarray:
        return self.waveforms[name]


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32) / 10

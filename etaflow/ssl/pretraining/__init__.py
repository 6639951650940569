"""Pretraining of small WavLMs: masked prediction of clusters, from mixed and noisy speech.

WavLM (arXiv 2110.13900) learns as HuBERT does (arXiv 2106.07447): frames are clustered, spans of
them are masked, and the network says which clusters lie under the mask. The clusters are those of
clean speech, what the network hears is partly overlaid by other speech or noise. The first
iteration clusters MFCCs, the next ones a layer of the network before.
"""

from etaflow.ssl.pretraining.codes import Codes, mfcc, nearest_codes, standardised
from etaflow.ssl.pretraining.crops import Crops
from etaflow.ssl.pretraining.network import PretrainingNetwork, save_encoder
from etaflow.ssl.pretraining.task import PretrainingTask, Validation

__all__ = [
    "Codes",
    "Crops",
    "PretrainingNetwork",
    "PretrainingTask",
    "Validation",
    "mfcc",
    "nearest_codes",
    "save_encoder",
    "standardised",
]

"""Resemblyzer: a GE2E d-vector encoder (Wan et al. 2018, arXiv 1710.10467), 256-dimensional."""

from collections.abc import Sequence

import numpy as np
import torch
from resemblyzer import VoiceEncoder, audio, hparams
from torchaudio.transforms import MelSpectrogram

from etaflow.audio import SAMPLE_RATE, Waveform
from etaflow.models import ModelInfo
from etaflow.store import Floats

PARTIALS_PER_SECOND, MIN_COVERAGE = 1.3, 0.75  # Resemblyzer's defaults
BATCH = 256  # partial utterances of 1.6 s


class Resemblyzer:
    """The weights of the `resemblyzer` package, run on the partials of many utterances at once."""

    shortest = SAMPLE_RATE // 100

    def __init__(self, info: ModelInfo, device: torch.device) -> None:
        self.info = info
        self.encoder = VoiceEncoder(device, verbose=False).eval()
        self.dim: int = self.encoder.linear.out_features
        # As `wav_to_mel_spectrogram` has it of librosa, which takes seconds to load.
        self.mel = MelSpectrogram(
            hparams.sampling_rate,
            n_fft=hparams.sampling_rate * hparams.mel_window_length // 1000,
            hop_length=hparams.sampling_rate * hparams.mel_window_step // 1000,
            n_mels=hparams.mel_n_channels,
            pad_mode="constant",
            norm="slaney",
            mel_scale="slaney",
        )

    def _partials(self, waveform: Waveform) -> Floats:
        """Mel spectrograms (partials, 160, 40) of 1.6 s windows, as `embed_utterance` cuts them."""
        speech = audio.preprocess_wav(waveform)
        if len(speech) == 0:
            # The voice-activity detector found no speech: all of it is embedded.
            speech = waveform
        spans, mel_spans = self.encoder.compute_partial_slices(
            len(speech), PARTIALS_PER_SECOND, MIN_COVERAGE
        )
        speech = np.pad(speech, (0, max(0, spans[-1].stop - len(speech))))
        mel = self.mel(torch.from_numpy(speech).float()).numpy().T
        return np.stack([mel[span] for span in mel_spans])

    @torch.inference_mode()
    def embed(self, waveforms: Sequence[Waveform]) -> Floats:
        """Embeddings (U, 256) of length 1; see `SpeakerEncoder.embed`."""
        if any(len(waveform) < self.shortest for waveform in waveforms):
            raise ValueError("a waveform is shorter than 10 ms")
        partials = [self._partials(waveform) for waveform in waveforms]
        mels = torch.from_numpy(np.concatenate(partials))
        vectors = torch.cat(
            [self.encoder(batch.to(self.encoder.device)).cpu() for batch in mels.split(BATCH)]
        ).numpy()
        stops = np.cumsum([len(part) for part in partials])[:-1]
        means = np.stack([part.mean(axis=0) for part in np.split(vectors, stops)])
        if not np.isfinite(means).all():
            bad = int(np.flatnonzero(~np.isfinite(means).all(axis=1))[0])
            raise ValueError(f"the embedding of waveform {bad} of {len(means)} is not finite")
        return means / np.linalg.norm(means, axis=1, keepdims=True)

"""Where a recording begins and ends to be speech."""

import torch
import torchaudio.functional

from etaflow.audio import SAMPLE_RATE, Waveform

TRIGGER_LEVEL = 7.0  # kNN-VC's, for references
MIN_SECONDS = 0.5


def speech_span(waveform: Waveform) -> tuple[int, int]:
    """The samples [start, stop) of a 16 kHz (T,) without the silence before and after speech.

    By SoX's detector, as in kNN-VC (arXiv 2305.18975). Pauses between words stay. A waveform in
    which it finds less than half a second of speech is left as it is.
    """
    if len(waveform) < MIN_SECONDS * SAMPLE_RATE:
        return 0, len(waveform)
    signal = torch.from_numpy(waveform)

    def silence(signal: torch.Tensor) -> int:
        heard = torchaudio.functional.vad(signal, SAMPLE_RATE, trigger_level=TRIGGER_LEVEL)
        return len(signal) - len(heard)

    start, stop = silence(signal), len(signal) - silence(signal.flip(0))
    return (start, stop) if stop - start >= MIN_SECONDS * SAMPLE_RATE else (0, len(signal))

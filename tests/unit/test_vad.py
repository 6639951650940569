from pathlib import Path

import numpy as np
import torch
import torchaudio

from etaflow.audio import read_audio
from etaflow.vad import speech_span


def test_silence_around_speech_is_left_out_and_pauses_stay(speech_dir: Path) -> None:
    speech = read_audio(min((speech_dir / "LibriTTS").rglob("*.wav")))
    generator = np.random.default_rng(0)

    def hiss(seconds: float) -> np.ndarray:
        return generator.normal(0, 1e-4, round(16_000 * seconds)).astype(np.float32)

    waveform = np.concatenate([hiss(2), speech, hiss(1), speech, hiss(3)])
    start, stop = speech_span(waveform)
    # The detector begins up to half a second late.
    assert 2 * 16_000 - 4_800 < start < 2.5 * 16_000
    assert 2.5 * 16_000 < len(waveform) - stop < 3 * 16_000 + 4_800
    assert stop - start > 2 * len(speech) - 16_000 + 16_000


def test_it_is_what_knn_vc_keeps(speech_dir: Path) -> None:
    vad = torchaudio.transforms.Vad(sample_rate=16_000, trigger_level=7.0)
    for path in sorted((speech_dir / "LibriSpeech").rglob("*.flac"))[:3]:
        waveform = read_audio(path)
        front = vad(torch.from_numpy(waveform))
        expected = vad(front.flip(-1)).flip(-1)
        start, stop = speech_span(waveform)
        np.testing.assert_array_equal(waveform[start:stop], expected.numpy())


def test_where_there_is_no_speech_nothing_is_left_out() -> None:
    for waveform in (np.zeros(32_000), np.full(9_000, 1e-3), np.zeros(0), np.zeros(30)):
        assert speech_span(waveform.astype(np.float32)) == (0, len(waveform))

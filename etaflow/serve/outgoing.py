"""Audio as files in memory."""

import io
import zipfile

import numpy as np
import soundfile

from etaflow.audio import Waveform
from etaflow.serve.messages import Audio

MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac"}


def encode(waveform: Waveform, rate: int, kind: str = "wav") -> bytes:
    """A waveform (T,) as a 16-bit file of `kind`, `wav` or `flac`.

    Raises:
        ValueError: samples are not finite, or beyond [-1, 1].
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    # Rounding of a gain may leave a peak of 1 + 1e-7, which clips by a step of 2^-15 at most.
    if not peak <= 1 + 1e-5:
        raise ValueError(f"a peak of {peak} cannot be written as 16 bits")
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, "PCM_16", format=kind.upper())
    return file.getvalue()


def encode_sources(audio: Audio) -> list[bytes]:
    """The separated speakers as WAV files of 32-bit float, which keep their level.

    Raises:
        ValueError: samples are not finite.
    """
    from scipy.io import wavfile  # half of SciPy, which a server need not wait for

    files = []
    for waveform in audio.waveforms:
        if not np.isfinite(waveform).all():
            raise ValueError("NaN or infinite samples are not written")
        file = io.BytesIO()
        # libsndfile puts the time into float WAV: the same samples, other bytes.
        wavfile.write(file, audio.rate, np.asarray(waveform, np.float32))
        files.append(file.getvalue())
    return files


def archive(files: list[bytes]) -> bytes:
    """A ZIP archive of `source1.wav`, `source2.wav` …"""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for number, file in enumerate(files, start=1):
            # A fixed date: the same speakers give the same archive.
            archive.writestr(zipfile.ZipInfo(f"source{number}.wav"), file)
    return packed.getvalue()

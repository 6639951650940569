"""M4A files for tests, encoded by FFmpeg's own AAC and ALAC encoders."""

from pathlib import Path

import av
import numpy as np
import pytest

needs_aac = pytest.mark.skipif(
    "aac" not in av.codecs_available, reason="this build of PyAV has no AAC encoder"
)


def write_m4a(
    path: Path, samples: np.ndarray, rate: int = 16_000, codec: str = "aac", flags: str = ""
) -> Path:
    """Encode (T,) or (T, channels), AAC at 128 kb/s; `flags` are those of FFmpeg's MP4 muxer."""
    planes = np.atleast_2d(np.asarray(samples, np.float32).T)
    layout = {1: "mono", 2: "stereo"}[len(planes)]
    with av.open(
        str(path), "w", format="ipod", options={"movflags": flags} if flags else None
    ) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        container.start_encoding()
        framer = av.AudioResampler(
            stream.format, layout, rate, frame_size=stream.codec_context.frame_size
        )
        for piece in [*framer.resample(frame), *framer.resample(None), None]:
            for packet in stream.encode(piece):
                container.mux(packet)
    return path

"""Pictures of recordings for the page: waveform and spectrogram, drawn without a display."""

import base64
import html
import io

import numpy as np
from matplotlib.figure import Figure

from etaflow.audio import Waveform

HERTZ = 8_000  # shown; what speech models hear
COLUMNS = 1_200  # of a picture, about: longer recordings are drawn more coarsely
WINDOW_SECONDS = 0.032
RANGE = 80.0  # dB that colours tell apart


def picture(waveform: Waveform, rate: int) -> bytes:
    """A PNG: above the waveform (T,), below its spectrogram up to 8 kHz, over seconds.

    Figures are made without pyplot, whose state threads would share.
    """
    figure = Figure(figsize=(5.0, 3.6), dpi=160, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    step = max(1, -(-len(waveform) // COLUMNS))
    starts = np.arange(0, len(waveform), step)
    low, high = (bound.reduceat(waveform, starts) for bound in (np.minimum, np.maximum))
    above.fill_between(starts / rate, low, high, color="#0b4f8a", linewidth=0.4)
    peak = max(float(np.abs(waveform).max()), 1e-3)
    above.set(ylim=(-1.05 * peak, 1.05 * peak), ylabel="amplitude")
    window = min(len(waveform), round(WINDOW_SECONDS * rate))
    power, hertz, seconds = _power(waveform, rate, window, max(window // 4, step))
    level = 10 * np.log10(power + 1e-12)
    loudest = float(level.max())
    below.pcolormesh(
        *(seconds, hertz, level), vmin=loudest - RANGE, vmax=loudest, cmap="magma", rasterized=True
    )
    below.set(
        xlim=(0, len(waveform) / rate),
        ylim=(0, min(HERTZ, rate / 2)),
        xlabel="seconds",
        ylabel="Hz",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _power(
    waveform: Waveform, rate: int, window: int, hop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power (F, T) of Hann windows of the signal, and what Hz and seconds its cells stand for."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(window).astype(np.float32))
    hertz = np.fft.rfftfreq(window, 1 / rate)
    heard = hertz <= HERTZ
    seconds = (np.arange(len(frames)) * hop + window / 2) / rate
    return np.abs(spectrum[:, heard].T) ** 2, hertz[heard], seconds


def picture_html(name: str, waveform: Waveform, rate: int) -> str:
    """A picture with its caption and a text for those who cannot see it.

    The image is part of the HTML: it needs no file that could be read by others.
    """
    encoded = base64.b64encode(picture(waveform, rate)).decode("ascii")
    label, seconds = html.escape(name), len(waveform) / rate
    return (
        f'<figure class="picture"><figcaption>{label}: {seconds:.2f} s at {rate:,} Hz'
        f'</figcaption><img src="data:image/png;base64,{encoded}" alt="Waveform and spectrogram '
        f'of {label}, {seconds:.2f} seconds long"></figure>'
    )

"""eSpeak NG through its C interface (`speak_lib.h`); the library and its data come as a wheel.

eSpeak NG draws random numbers and carries state from one utterance to the next: the same samples
come on every run only if its seeds are set and the same utterances are spoken in the same order by
a fresh process. So this file is a program: it reads a JSON list of utterances (the fields of
`Speech`) from stdin, and writes each as a WAV file at eSpeak NG's own rate. It imports next to
nothing, so that a process a speaker costs nothing.
"""

import ctypes
import json
import sys
import wave
from dataclasses import dataclass
from typing import Any

import espeakng_loader

# Values of the enumerations in speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Speech:
    """One utterance to be spoken."""

    text: str
    voice: str  # as in "en-us+f2"
    rate: int  # words a minute, 80 to 450
    pitch: int  # 0 to 99, 50 is the voice's own
    pitch_range: int  # 0 (monotone) to 99, 50 is the voice's own
    speed: float = 1.0  # that it is played at: formants, pitch and rate are as much higher
    path: str = ""  # of the WAV file


def _check(status: int, call: str) -> None:
    if status != 0:
        sys.exit(f"eSpeak NG: {call} failed with status {status}")


def speak(speeches: list[Speech]) -> None:
    """Speak each text into its 16-bit mono WAV file. To be called once in a fresh process."""
    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    libc = ctypes.CDLL(None)
    data = espeakng_loader.get_data_path().encode()
    sample_rate = espeak.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
    if sample_rate <= 0:
        sys.exit(f"eSpeak NG does not start (status {sample_rate})")
    blocks: list[bytes] = []

    def collect(samples: Any, count: int, events: int | None) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(collect)
    espeak.espeak_SetSynthCallback(callback)
    for seed, speech in enumerate(speeches, start=1):
        blocks.clear()
        _check(espeak.espeak_SetVoiceByName(speech.voice.encode()), f"voice {speech.voice!r}")
        _check(espeak.espeak_SetParameter(_RATE, speech.rate, 0), "rate")
        _check(espeak.espeak_SetParameter(_PITCH, speech.pitch, 0), "pitch")
        _check(espeak.espeak_SetParameter(_RANGE, speech.pitch_range, 0), "pitch range")
        espeak.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        libc.srand(ctypes.c_uint(seed))
        text = speech.text.encode() + b"\0"
        size = ctypes.c_size_t(len(text))
        status = espeak.espeak_Synth(text, size, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        _check(status, f"speaking {speech.text!r}")
        _check(espeak.espeak_Synchronize(), f"speaking {speech.text!r}")
        with wave.open(speech.path, "wb") as file:
            # Rates without a common divisor take long to resample.
            played = 50 * round(sample_rate * speech.speed / 50)
            file.setparams((1, 2, played, 0, "NONE", ""))
            file.writeframes(b"".join(blocks))


if __name__ == "__main__":
    speak([Speech(**speech) for speech in json.load(sys.stdin)])

"""What corpora that are spoken by eSpeak NG have in common: speaking, and the list of what was."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.atomic import atomic_directory
from etaflow.audio import SAMPLE_RATE, Waveform, read_audio, write_audio
from etaflow.corpora import _espeak
from etaflow.corpora.base import CorpusError, Listing, Recording
from etaflow.manifest import read_table, write_table
from etaflow.progress import progress

TABLE = "recordings.tsv"
OCTAVES = 125.0 * 2.0 ** np.arange(7)  # Hz, up to 8 kHz


@dataclass(frozen=True)
class Utterance:
    """A recording to be made, its path relative to the corpus, and how it is spoken."""

    recording: Recording
    speech: _espeak.Speech  # its path is left open
    gains: tuple[float, ...] = ()  # of an equaliser, dB at `OCTAVES`; none: as spoken


def equalise(waveform: Waveform, gains: Sequence[float]) -> Waveform:
    """A waveform (T,) at 16 kHz, of the same power, with gains between `OCTAVES` as in a line.

    Args:
        waveform: within -1 and 1, where the result is as well, at less power if it has to be.
        gains: dB at each of `OCTAVES`; below the first as there.
    """
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, OCTAVES[0]))
    levels: npt.NDArray[np.float64] = np.interp(octaves, np.log2(OCTAVES), gains)
    shaped = np.fft.irfft(np.fft.rfft(waveform) * 10 ** (levels / 20), len(waveform))
    shaped *= np.sqrt(np.mean(waveform**2) / (np.mean(shaped**2) + 1e-12))
    return np.asarray(shaped / max(1.0, np.abs(shaped).max()), np.float32)


def _record(speaker_id: str, plan: Sequence[Utterance], folder: Path) -> None:
    """Speak a plan in one fresh process; `folder` stands for the speaker's, of WAV at 16 kHz."""
    with tempfile.TemporaryDirectory() as temporary:
        speeches = [
            replace(utterance.speech, path=f"{temporary}/{number}.wav")
            for number, utterance in enumerate(plan)
        ]
        # -P: the folder of the program is not to be searched for modules.
        done = subprocess.run(
            [sys.executable, "-P", _espeak.__file__],
            input=json.dumps([asdict(speech) for speech in speeches]),
            text=True,
            capture_output=True,
        )
        if done.returncode != 0:
            raise CorpusError(
                f"speaker {speaker_id} cannot be synthesised "
                f"(status {done.returncode}): {done.stderr.strip()}"
            )
        for utterance, speech in zip(plan, speeches, strict=True):
            path = folder.joinpath(*utterance.recording.path.parts[1:])
            waveform = read_audio(speech.path)
            write_audio(path, equalise(waveform, utterance.gains) if utterance.gains else waveform)


def synthesise(root: Path, plans: Mapping[str, Sequence[Utterance]], workers: int = 1) -> None:
    """Speak the plan of each speaker into `root/speaker`, and list all recordings in `root`.

    The files of a speaker depend on that speaker's plan alone, byte for byte.

    Raises:
        CorpusError: a speaker cannot be synthesised; nothing of that speaker is left.
    """

    def make(speaker_id: str) -> None:
        with atomic_directory(root / speaker_id) as part:
            _record(speaker_id, plans[speaker_id], part)

    with ThreadPoolExecutor(workers) as pool:
        made: Iterator[None] = pool.map(make, plans)
        for _ in progress(made, "synthesise", "speaker", total=len(plans)):
            pass
    table = pd.DataFrame([each.recording for plan in plans.values() for each in plan])
    write_table(table.drop(columns="split"), root / TABLE)


def recordings(root: Path, config: Mapping[str, Any]) -> Listing:
    """List what `synthesise` made.

    Raises:
        CorpusError: nothing was made.
    """
    if not (root / TABLE).is_file():
        raise CorpusError(f"{root / TABLE}: no such file; fetch the corpus first")
    table = read_table(root / TABLE)
    columns = (table[field] for field in ("utterance_id", "speaker_id", "session_id"))
    paths = [root / path for path in table["path"]]
    return [Recording(*fields) for fields in zip(*columns, paths, table["text"], strict=True)]

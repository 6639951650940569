"""Speech recognition, to count the words that a conversion kept."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from etaflow.audio import SAMPLE_RATE, Waveform, read_audio
from etaflow.progress import bar

SILENCE_SECONDS = 0.2  # on both sides: PocketSphinx loses words that touch the edge
BATCH = 64  # files in memory at a time


class Recognizer(Protocol):
    """Turns waveforms into text."""

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Transcribe (T,) float32 waveforms at 16 kHz; no words heard is an empty text."""
        ...


def _load_decoder(jsgf: str | None) -> Any:
    from pocketsphinx import Decoder, set_loglevel

    set_loglevel("ERROR")
    if jsgf is None:
        return Decoder()
    decoder = Decoder(lm=None)
    try:
        decoder.add_jsgf_string("grammar", jsgf)
    except ValueError as error:
        raise ValueError(
            "PocketSphinx refuses the grammar: not JSGF, or a word is not in its dictionary "
            "(its own message on stderr names which)"
        ) from error
    decoder.activate_search("grammar")
    return decoder


def _decode(waveform: Waveform, jsgf: str | None) -> str:
    # A new decoder each time (0.1 to 0.2 s): a used one carries state into the next utterance,
    # whose text would then depend on the order of the files.
    from pocketsphinx import set_loglevel

    decoder = _load_decoder(jsgf)
    # An utterance outside the grammar is an answer (no words), not an error to print.
    set_loglevel("FATAL")
    samples = np.pad(waveform, round(SILENCE_SECONDS * SAMPLE_RATE))
    pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


class PocketSphinx:
    """CMU PocketSphinx with the US-English acoustic model of its wheel; needs no download."""

    def __init__(self, jsgf: str | None = None, workers: int = 1) -> None:
        """Check the grammar.

        Args:
            jsgf: text of a JSGF grammar, the sentences that can be heard; None takes the wheel's
                open-vocabulary language model.
            workers: processes to decode in.

        Raises:
            ValueError: the grammar does not parse or has a word without a pronunciation.
        """
        _load_decoder(jsgf)  # a bad grammar fails here, not in a worker
        self._decode = partial(_decode, jsgf=jsgf)
        self._pool = None
        if workers > 1:
            # Not forked: threads of a library in this process could leave a lock behind.
            self._pool = ProcessPoolExecutor(workers, get_context("spawn"))

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Transcribe (T,) float32 waveforms at 16 kHz, each independently of the others."""
        return list((self._pool.map if self._pool else map)(self._decode, waveforms))


class FasterWhisper:
    """Whisper (Radford et al. 2022) run by CTranslate2, from a local folder."""

    def __init__(self, model_dir: str | Path, device: str = "cpu", threads: int = 1) -> None:
        """Load a converted model.

        Args:
            model_dir: folder with `model.bin`, `config.json`, `tokenizer.json`.
            device: `cpu` or `cuda`.
            threads: CPU threads.

        Raises:
            FileNotFoundError: a file is missing; nothing is ever downloaded.
        """
        folder = Path(model_dir)
        for name in ("model.bin", "config.json", "tokenizer.json"):
            if not (folder / name).is_file():  # without them faster-whisper would ask the hub
                raise FileNotFoundError(f"{folder / name}: not a faster-whisper model folder")
        from faster_whisper import WhisperModel

        self._model = WhisperModel(
            str(folder),
            device=device,
            compute_type="float16" if device == "cuda" else "float32",
            cpu_threads=threads,
            local_files_only=True,
        )

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Transcribe (T,) float32 waveforms at 16 kHz as English, by a beam of 5."""
        return [self._transcribe(waveform) for waveform in waveforms]

    def _transcribe(self, waveform: Waveform) -> str:
        segments, _ = self._model.transcribe(
            waveform,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            vad_filter=False,
        )
        return " ".join(segment.text.strip() for segment in segments)


def transcribe_files(recognizer: Recognizer, paths: Sequence[Path]) -> list[str]:
    """Read and transcribe audio files, a few at a time, under a progress bar.

    Raises:
        AudioError: a file cannot be read.
    """
    texts: list[str] = []
    with bar(len(paths), "transcribe", "utterance") as shown:
        for start in range(0, len(paths), BATCH):
            batch = [read_audio(path) for path in paths[start : start + BATCH]]
            # A tab or a line break has no room in a table.
            texts += [" ".join(text.split()) for text in recognizer.transcribe(batch)]
            shown.update(len(batch))
    return texts

"""Where the phones of a known text lie in its recording, by PocketSphinx's US-English model."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from etaflow.asr import SILENCE_SECONDS
from etaflow.audio import SAMPLE_RATE, AudioError, Waveform, read_audio
from etaflow.metrics import normalize_text
from etaflow.progress import progress

STEPS = 100  # a second: what PocketSphinx counts in
COLUMNS = ["utterance_id", "start", "stop", "word", "phone"]
Segment = tuple[float, float, str, str]  # start and stop in seconds, word, phone


class AlignmentError(ValueError):
    """A text that cannot be aligned to its recording; the message says why."""


def align(waveform: Waveform, text: str) -> list[Segment]:
    """Align a text to its recording (T,) at 16 kHz.

    The text is put through `normalize_text`. A word of several pronunciations gets the one heard.
    Alignment is forced: a text that is not what was said is aligned too if there is time for it.

    Returns:
        A row a phone, without silences, in order of time: start and stop in seconds (multiples of
        10 ms), the word it belongs to, and the phone, one of 39 of the CMU dictionary.

    Raises:
        AlignmentError: no text, a word that is not in the dictionary, or no path through the
            recording.
    """
    from pocketsphinx import Decoder

    words = normalize_text(text).split()
    if not words:
        raise AlignmentError("no text")
    # A new decoder each time: a used one carries state into the next utterance. Without `bestpath`:
    # a search of the word lattice afterwards finds no way for one real recording in eight. Of its
    # messages, errors would repeat the reasons given here.
    decoder = Decoder(lm=None, bestpath=False, loglevel="FATAL")
    unknown = sorted({word for word in words if decoder.lookup_word(word) is None})
    if unknown:
        raise AlignmentError(f"not in the dictionary: {', '.join(unknown)}")
    samples = np.pad(waveform, round(SILENCE_SECONDS * SAMPLE_RATE))
    pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    try:
        decoder.set_align_text(" ".join(words))
        for subword in (False, True):  # words first, then the phones within them
            if subword:
                decoder.set_alignment()
            decoder.start_utt()
            decoder.process_raw(pcm, full_utt=True)
            decoder.end_utt()
        # Read at once: an entry is gone as soon as its iterator moves on.
        aligned = [
            (entry.name, [(phone.name, phone.start, phone.duration) for phone in entry])
            for entry in decoder.get_alignment()
        ]
    except RuntimeError as error:
        raise AlignmentError("the recording does not fit the text") from error
    # Silences are `<sil>`, `</s>`, `[NOISE]`; a second pronunciation is `read(2)`.
    spoken = [(name.split("(")[0], phones) for name, phones in aligned if name[0] not in "<["]
    if [word for word, _ in spoken] != words:
        raise AlignmentError("the words found are not those of the text")
    offset, last = round(SILENCE_SECONDS * STEPS), len(waveform) * STEPS // SAMPLE_RATE
    rows = []
    for word, phones in spoken:
        for phone, begin, duration in phones:
            start, stop = max(begin - offset, 0), min(begin - offset + duration, last)
            if start >= stop:
                raise AlignmentError(f"a phone lies outside the recording: {word}")
            rows.append((start / STEPS, stop / STEPS, word, phone))
    return rows


def _align_file(path: str, text: str) -> list[Segment] | str:
    """The alignment of a file, or why there is none."""
    try:
        return align(read_audio(path), text)
    except AudioError as error:
        return error.reason
    except AlignmentError as error:
        return str(error)


def _align_all(
    paths: Sequence[str], texts: Sequence[str], workers: int
) -> Iterator[list[Segment] | str]:
    if workers == 1:
        yield from map(_align_file, paths, texts)
        return
    # spawn: a fork would copy the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_align_file, paths, texts, chunksize=4)


def align_files(
    utterance_ids: Sequence[str],
    paths: Sequence[str | Path],
    texts: Sequence[str],
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Align texts to audio files in worker processes.

    Returns:
        The alignments (`COLUMNS`), and the utterances left out (`utterance_id`, `reason`), both in
        the order given.
    """
    rows: list[tuple[str, float, float, str, str]] = []
    rejected: list[tuple[str, str]] = []
    results = _align_all([str(path) for path in paths], texts, workers)
    shown = progress(results, "align", "utterance", total=len(paths))
    for name, result in zip(utterance_ids, shown, strict=True):
        if isinstance(result, str):
            rejected.append((name, result))
        else:
            rows += [(name, *segment) for segment in result]
    return (
        pd.DataFrame(rows, columns=COLUMNS),
        pd.DataFrame(rejected, columns=["utterance_id", "reason"]),
    )

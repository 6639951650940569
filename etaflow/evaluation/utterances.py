"""Scores of each converted utterance."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from etaflow.audio import Waveform, read_audio
from etaflow.evaluation.quality import load_dnsmos, mel_distance
from etaflow.metrics import character_errors, normalize_english, si_snr, word_errors
from etaflow.progress import bar
from etaflow.speaker import SpeakerEncoder
from etaflow.store import Embeddings, Floats, unit_rows

COUNTS = ["word_errors", "words", "character_errors", "characters"]
MEANS = ["similarity_target", "similarity_source", "dnsmos", "mel_distance", "si_snr"]
BATCH = 16  # files in memory at a time


@dataclass(frozen=True)
class RealSpeech:
    """The judge's embeddings (R, V), of length 1, of all real recordings of some speakers."""

    utterance_ids: npt.NDArray[np.str_]
    speaker_ids: npt.NDArray[np.str_]
    vectors: Floats

    @classmethod
    def select(
        cls, manifest: pd.DataFrame, embeddings: Embeddings, speakers: set[str]
    ) -> "RealSpeech":
        """The recordings of these speakers that the manifest lists.

        Raises:
            ValueError: a speaker has no recording in the manifest.
            StoreError: a recording has no embedding.
        """
        absent = sorted(speakers - set(manifest["speaker_id"]))
        if absent:
            raise ValueError(f"no recording in the manifest of speaker(s) {', '.join(absent)}")
        table = manifest[manifest["speaker_id"].isin(speakers)].sort_values("utterance_id")
        ids = table["utterance_id"].tolist()
        return cls(
            np.array(ids), table["speaker_id"].to_numpy(str), unit_rows(embeddings.rows(ids))
        )

    def of(self, speaker: str) -> Floats:
        """The embeddings of one speaker's recordings."""
        return self.vectors[self.speaker_ids == speaker]

    def similarity(self, vector: Floats, speaker: str, without: str | None = None) -> float:
        """Cosine to the speaker's mean embedding, taken `without` one of the recordings.

        NaN if no other recording is left.
        """
        chosen = (self.speaker_ids == speaker) & (self.utterance_ids != without)
        if not chosen.any():
            return float("nan")
        mean = self.vectors[chosen].mean(axis=0)
        return float(vector @ mean / (np.linalg.norm(vector) * np.linalg.norm(mean)))


def _text_scores(reference: str, hypothesis: str) -> dict[str, int]:
    if not normalize_english(reference):
        return {}
    errors, words = word_errors(reference, hypothesis)
    wrong, characters = character_errors(reference, hypothesis)
    return {
        "word_errors": errors,
        "words": words,
        "character_errors": wrong,
        "characters": characters,
    }


def _signal_scores(name: str, waveform: Waveform, source: str) -> dict[str, float]:
    reference = read_audio(source)
    length = min(len(waveform), len(reference))
    pair = waveform[:length], reference[:length]
    try:
        return {"si_snr": si_snr(*pair), "mel_distance": mel_distance(*pair)}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def score_utterances(
    system: str,
    converted: pd.DataFrame,
    transcripts: pd.DataFrame,
    sources: dict[str, str],
    real: RealSpeech,
    encoder: SpeakerEncoder,
    copies: bool = False,
    threads: int = 1,
) -> tuple[pd.DataFrame, Floats]:
    """Score each utterance of a system.

    Args:
        system: its name.
        converted: from `tables.read_converted`.
        transcripts: `utterance_id`, `reference`, `hypothesis`.
        sources: path of each real recording by utterance id.
        real: the recordings of all source and target speakers.
        encoder: the judge.
        copies: whether the system repeats its sources sample by sample, so that `si_snr` and
            `mel_distance` apply.
        threads: for DNSMOS.

    Returns:
        A row an utterance, NaN where a score does not apply, and the judge's embeddings (U, V),
        scaled to length 1.

    Raises:
        ValueError: an utterance has no transcript, or its signal cannot be scored.
        AudioError: a file cannot be read.
    """
    heard = transcripts.set_index("utterance_id")
    missing = [name for name in converted["utterance_id"] if name not in heard.index]
    if missing:
        raise ValueError(f"{len(missing)} utterance(s) not transcribed, the first is {missing[0]}")
    unknown = sorted(set(converted["source_id"]) - set(sources))
    if unknown:
        raise ValueError(f"{len(unknown)} source(s) not in the manifest, the first is {unknown[0]}")
    judge = load_dnsmos()
    rows: list[dict[str, Any]] = []
    vectors: list[Floats] = []
    with ThreadPoolExecutor(threads) as pool, bar(len(converted), system, "utterance") as shown:
        for start in range(0, len(converted), BATCH):
            batch = converted.iloc[start : start + BATCH].to_dict("records")
            waveforms = [read_audio(row["path"]) for row in batch]
            quality = pool.map(judge, waveforms)
            embedded = unit_rows(encoder.embed(waveforms))
            vectors.append(embedded)
            for row, waveform, vector, mos in zip(batch, waveforms, embedded, quality, strict=True):
                same = row["source_speaker"] == row["target_speaker"]
                scores: dict[str, Any] = {
                    "utterance_id": row["utterance_id"],
                    "source_id": row["source_id"],
                    "target_speaker": row["target_speaker"],
                    **_text_scores(*heard.loc[row["utterance_id"], ["reference", "hypothesis"]]),
                    # The recording that the row was made from would only find itself again.
                    "similarity_target": real.similarity(
                        vector, row["target_speaker"], row["source_id"] if same else None
                    ),
                    "dnsmos": mos,
                }
                if not same:
                    scores["similarity_source"] = real.similarity(vector, row["source_speaker"])
                if copies:
                    scores |= _signal_scores(
                        row["utterance_id"], waveform, sources[row["source_id"]]
                    )
                rows.append(scores)
            shown.update(len(batch))
    columns = ["utterance_id", "source_id", "target_speaker", *COUNTS, *MEANS]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.astype(dict.fromkeys(COUNTS, "Int64")), np.concatenate(vectors)

"""Recordings to files of embeddings."""

import sys
from pathlib import Path

import pandas as pd

from etaflow.audio import SAMPLE_RATE, read_ahead, resampled_length
from etaflow.batches import similar_lengths
from etaflow.manifest import first_names
from etaflow.progress import bar
from etaflow.speaker import SpeakerEncoder
from etaflow.store import EmbeddingWriter

BATCH_SECONDS = 120.0  # of audio, padding included


def embed_recordings(
    encoder: SpeakerEncoder,
    recordings: pd.DataFrame,
    output: str | Path,
    fingerprint: str,
    threads: int = 2,
    max_seconds: float | None = None,
) -> None:
    """Write the embeddings of recordings, and the means of their speakers, as `Embeddings`.

    A call that was killed is gone on with by the next that is given the same.

    Args:
        encoder: of the embeddings.
        recordings: of a manifest; read are `utterance_id`, `speaker_id`, `path`, `checksum`,
            `num_samples` and `sample_rate`.
        output: HDF5 file to write.
        fingerprint: of all that the embeddings depend on, besides the ids and the encoder's name.
        threads: that read recordings.
        max_seconds: embed so much of the beginning of each, or all of it.

    Raises:
        AudioError: a recording changed since it was listed, or cannot be read.
        StoreError: a speaker's embeddings have no mean direction, or the disk has too little room.
        ValueError: recordings are too short for the encoder, or an embedding is not finite.
    """
    ids = list(recordings["utterance_id"])
    files = list(zip(recordings["path"], recordings["checksum"], strict=True))
    counts = zip(recordings["num_samples"], recordings["sample_rate"], strict=True)
    longest = sys.maxsize if max_seconds is None else round(max_seconds * SAMPLE_RATE)
    lengths = [min(resampled_length(count, rate), longest) for count, rate in counts]
    info = encoder.info
    short = [name for name, length in zip(ids, lengths, strict=True) if length < encoder.shortest]
    if short:
        raise ValueError(
            f"{len(short)} of {len(ids)} recordings are shorter than the "
            f"{encoder.shortest / SAMPLE_RATE:.3f} s that {info.name} needs: {first_names(short)}; "
            "leave them out of the corpus, or take another encoder"
        )
    speakers = list(recordings["speaker_id"])
    with (
        EmbeddingWriter(
            output, ids, speakers, encoder.dim, info.name, info.weights, fingerprint
        ) as writer,
        bar(
            len(ids),
            f"{Path(output).name}: embeddings by {info.name}",
            "utterances",
            initial=len(ids) - len(writer.remaining),
        ) as shown,
    ):
        left = set(writer.remaining)
        # Batches are made up as before a kill, so that the result is the same to the bit.
        batches = [
            batch
            for batch in similar_lengths(lengths, int(BATCH_SECONDS * SAMPLE_RATE))
            if not left.isdisjoint(ids[index] for index in batch)
        ]
        waveforms = read_ahead([[files[index] for index in batch] for batch in batches], threads)
        for batch, waves in zip(batches, waveforms, strict=True):
            vectors = encoder.embed([wave[:longest] for wave in waves])
            for index, vector in zip(batch, vectors, strict=True):
                writer.write(ids[index], vector)
            shown.update(sum(ids[index] in left for index in batch))

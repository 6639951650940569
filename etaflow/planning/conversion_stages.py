"""What the jobs on corpora, features, Eta models, vocoders and conversions are made of.

A function a rule, by its name: the study and the wildcards of a job give its amount.
"""

from typing import Any

import numpy as np

from etaflow.corpora import sizes
from etaflow.planning import variants
from etaflow.planning.speech import UNKNOWN, Corpus
from etaflow.planning.study import HOURS, Amount, Study, of_speech, of_utterances

FRAMES_AN_HOUR = 50 * 3600


# --- corpora and models


def _not_fetched_before(study: Study, corpus: Corpus) -> list[sizes.Size]:
    """The published subsets of a corpus that none before it fetches; one kind shares its folder."""
    fetched: list[sizes.Size] = []
    for other in study.corpora.values():
        if other is corpus:
            break
        if other.entry["kind"] == corpus.entry["kind"] and other.entry.get("root") is None:
            fetched += other.subsets()
    return [size for size in corpus.subsets() if size not in fetched]


def fetch_corpus(study: Study, wildcards: dict[str, str]) -> Amount:
    """Gigabytes to fetch, or sentences to say."""
    corpus = study.corpora[wildcards["corpus"]]
    kind = corpus.entry["kind"]
    subsets = _not_fetched_before(study, corpus)
    source = sizes.SOURCES.get(kind, UNKNOWN)
    if kind in sizes.SPOKEN_SECONDS:
        said = corpus.entry["speakers"] * corpus.entry["sentences"]
        written = said * sizes.SPOKEN_SECONDS[kind] * 32_000
        return Amount(said, "sentences to say", "", "config", written=written)
    known = [size.gigabytes for size in subsets if size.gigabytes is not None]
    if corpus.subsets() and len(known) == len(subsets):
        return Amount(sum(known), "GB to fetch", "", source, written=sum(known) * 1e9)
    hours = corpus.whole().hours
    # VoxCeleb1 is known to be 16-bit WAV at 16 kHz.
    written = None if hours is None else hours * 3600 * 32_000
    return Amount(None, "GB to fetch", "", "size not published", written=written)


def fetch_noise(study: Study, wildcards: dict[str, str]) -> Amount:
    """The archive, and what is unpacked of it."""
    written = sizes.WHAM_GIGABYTES * 1e9
    return Amount(17, "GB to fetch", "", "etaflow.corpora.librimix", written=written)


def fetch_model(study: Study, wildcards: dict[str, str]) -> Amount:
    """A model; how large those that are downloaded are is not listed."""
    if study.config["models"][wildcards["model"]]["source"] in ("random", "package", "path"):
        return Amount(1, "model at hand")
    return Amount(None, "model to fetch", "", "size not listed")


def build_manifest(study: Study, wildcards: dict[str, str]) -> Amount:
    """Utterances to check."""
    return of_utterances(study.whole(wildcards["corpus"], None))


# --- features, embeddings, Eta


def _stored_frames(study: Study, ssl: str, layers: int) -> float | None:
    dim = variants.frame_dim(study.config, ssl)
    width = {"float16": 2, "float32": 4}[study.config["ssl"][ssl]["dtype"]]
    return None if dim is None else FRAMES_AN_HOUR * dim * width * layers


def dump_features(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of speech of a shard; frames are written."""
    speech = study.corpora[wildcards["corpus"]].shard(wildcards["shard"])
    ssl, layers = wildcards["ssl"], wildcards["layer"]
    variant = variants.features_variant(study.config, ssl, layers)
    stored = _stored_frames(study, ssl, len(layers.split()))
    return of_speech(speech, variant, stored)


def embed_speakers(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of speech of a shard; vectors are written."""
    speech = study.corpora[wildcards["corpus"]].shard(wildcards["shard"])
    encoder, cut = wildcards["encoder"], wildcards.get("cut", "").removeprefix("-")
    variant = " ".join(part for part in (variants.model_label(study.config, encoder), cut) if part)
    dim = variants.embedding_dim(study.config, encoder)
    known = speech.utterances is not None and dim is not None
    written = (speech.utterances or 0) * 4 * (dim or 0) if known else None
    return Amount(speech.hours, HOURS, variant, speech.source, written=written)


def gather_embeddings(study: Study, wildcards: dict[str, str]) -> Amount:
    """Utterances of a corpus; its vectors are written once more."""
    dim = variants.embedding_dim(study.config, wildcards["encoder"])
    whole = study.whole(wildcards["corpus"], None)
    return of_utterances(whole, None if dim is None else 4 * dim)


def fit_pca(study: Study, wildcards: dict[str, str]) -> Amount:
    """Training utterances."""
    return _training_utterances(study, study.config["eta"][wildcards["eta"]])


def fit_eta(study: Study, wildcards: dict[str, str]) -> Amount:
    """Training utterances."""
    return _training_utterances(study, study.config["eta"][wildcards["eta"]])


def _training_utterances(study: Study, entry: dict[str, Any]) -> Amount:
    if entry["utterances"] is not None:
        return Amount(entry["utterances"], "utterances", "", "config")
    return of_utterances(study.whole(entry["corpus"], "train"))


def align_texts(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of test speech."""
    return of_speech(study.whole(wildcards["corpus"], "test"), "pocketsphinx")


# --- vocoder and conversion


def prematch(study: Study, wildcards: dict[str, str]) -> Amount:
    """The squares of the hours of the shard's training speakers; frames are written."""
    speech = study.corpora[wildcards["corpus"]].shard(wildcards["shard"], "train")
    dim = variants.frame_dim(study.config, wildcards["ssl"])
    stored = _stored_frames(study, wildcards["ssl"], 1)
    known = speech.hours is not None and stored is not None
    written = (speech.hours or 0) * (stored or 0) if known else None
    source = speech.source
    if source not in ("manifests", UNKNOWN):
        source += ", equal speakers"
    return Amount(
        speech.squares, "h x h of a speaker", f"dimensions {dim}", source, written=written
    )


def train_vocoder(study: Study, wildcards: dict[str, str]) -> Amount:
    """Steps."""
    entry = study.config["vocoder"][wildcards["vocoder"]]
    return Amount(entry["steps"], "steps", variants.vocoder_variant(entry), "config")


def _converted(study: Study, variant: str, written: bool = False) -> Amount:
    """Hours that a system says: each drawn source in the voice of every other test speaker."""
    conversion = study.config["conversion"]
    pairs, corpus = conversion["pairs"], study.corpora[conversion["corpus"]]
    test = study.whole(conversion["corpus"], "test")
    if "sources_per_speaker" not in pairs:
        return Amount(None, HOURS, variant, "pairs of a table are not counted")
    if test.hours is None or test.utterances is None or test.speakers is None:
        return Amount(None, HOURS, variant, UNKNOWN)
    asked, table = pairs["sources_per_speaker"], corpus.table("test")
    if table is None:
        sources = asked * test.speakers
    else:
        counts = table.groupby("speaker_id", sort=False).size().to_numpy()
        sources = float(np.minimum(counts, asked).sum())
    hours = sources * (test.speakers - 1) * test.hours / test.utterances
    size = hours * 3600 * 32_000 if written else None
    return Amount(hours, HOURS, variant, f"pairs of mean length, {test.source}", written=size)


def convert(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours that are said; 16-bit audio is written."""
    conversion = study.config["conversion"]
    system = conversion["systems"][wildcards["system"]]
    entry = study.config["vocoder"][conversion["vocoder"]]
    size = variants.vocoder_label(entry)
    if system["method"] == "original":
        size = ""
    return _converted(study, f"{system['method']} {size}".rstrip(), written=True)


def transcribe(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of what a system says."""
    return _converted(study, variants.transcribing_variant(study.config))


def score_conversion(study: Study, wildcards: dict[str, str]) -> Amount:
    """Hours of what a system says."""
    judge = study.config["conversion"]["judge"]
    return _converted(study, variants.model_label(study.config, judge))

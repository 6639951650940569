"""What figures of conversion rest on, in words: those of a run, and published ones.

Rates of two protocols do not compare: the recogniser alone moves a word error rate by half.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

UNKNOWN = "not known"
ALL_SPEECH = "all test speech of the target"
JUDGES = {
    "xvector": "x-vectors (SpeechBrain)",
    "ecapa": "ECAPA-TDNN (SpeechBrain)",
    "resemblyzer": "Resemblyzer (GE2E)",
    "wavlm-sv": "WavLM x-vectors (transformers)",
    "unispeech": "WavLM or HuBERT with an ECAPA head (UniSpeech)",
    "etaflow-encoder": "a speaker encoder trained here",
}


@dataclass(frozen=True)
class Protocol:
    """One line of words each; `UNKNOWN` where none of the sources at hand says."""

    corpus: str = UNKNOWN
    judge: str = UNKNOWN  # of equal error rates and similarities
    recogniser: str = UNKNOWN
    texts: str = UNKNOWN  # how they are normalised before errors are counted
    targets: str = UNKNOWN
    conversions: str = UNKNOWN  # of each system
    trials: str = UNKNOWN  # of an equal error rate
    reference: str = UNKNOWN  # speech of the target
    intervals: str = UNKNOWN

    def stated(self) -> dict[str, str]:
        """What is known of it, in order."""
        return {name: words for name, words in vars(self).items() if words != UNKNOWN}

    def words(self) -> str:
        """The same as one line."""
        return "; ".join(f"{name}: {words}" for name, words in self.stated().items())

    def differences(self, other: "Protocol") -> tuple[list[str], list[str]]:
        """In what it differs from another, and what cannot be said; intervals apart."""
        names = [field.name for field in fields(self) if field.name != "intervals"]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        unknown = [name for name, pair in pairs.items() if UNKNOWN in pair]
        return [n for n, (a, b) in pairs.items() if a != b and n not in unknown], unknown


def run_protocol(settings: Mapping[str, Any], metrics: pd.DataFrame) -> Protocol:
    """The protocol of a run.

    Args:
        settings: of the config, `corpus` (with its `name`), `judge` (its model), `asr` (with the
            `repo` of its model), `pairs`, `bootstrap_rounds`.
        metrics: of all systems, as `metrics_table` makes them.
    """
    corpus, asr = settings["corpus"], settings["asr"]
    tested = [name for name in corpus.get("subsets", []) if not name.startswith("train-")]
    published = {"librispeech": "LibriSpeech", "libritts": "LibriTTS"}.get(corpus["kind"])
    recogniser = f"Whisper {str(asr.get('repo')).rsplit('whisper-', maxsplit=1)[-1]}"
    if asr["engine"] == "pocketsphinx":
        recogniser = "PocketSphinx"
        recogniser += (
            ", the closed grammar of the corpus" if asr["grammar"] else ", open vocabulary"
        )
    whole, listed = "sources_per_speaker" in settings["pairs"], "table" in settings["pairs"]
    rates = metrics[metrics["metric"] == "eer_per_target"]
    made = metrics[(metrics["metric"] == "dnsmos") & metrics["system"].isin(rates["system"])]
    return Protocol(
        corpus=f"{published} {', '.join(tested)}"
        if published and tested and "split" not in corpus
        else f"{corpus['name']} ({corpus['kind']}), {'test split' if whole else 'chosen pairs'}",
        judge=JUDGES[settings["judge"]["architecture"]],
        recogniser=recogniser,
        texts="Whisper's English normaliser, without its table of spellings",
        targets=f"{int(rates['n'].max())}" if len(rates) else UNKNOWN,
        conversions=f"{int(made['n'].max())}" if len(made) else UNKNOWN,
        trials="all pairs of a target's recordings; each conversion with all of them",
        reference="as the table of pairs lists it"
        if listed
        else f"{ALL_SPEECH}, without silence at its ends",
        intervals=f"bootstrap over sources or targets, {settings['bootstrap_rounds']} rounds",
    )


@dataclass(frozen=True)
class Published:
    """Figures of a system as somebody else measured them; rates in percent."""

    system: str
    figures: dict[str, float]
    protocol: Protocol
    source: str


_KNNVC = Protocol(
    corpus="LibriSpeech dev-clean",
    judge=JUDGES["xvector"],
    recogniser="Whisper, its size not known",
    texts="normalised, not known how",
)
_LINEARVC = Protocol(
    corpus="LibriSpeech test-clean",
    judge=JUDGES["xvector"],
    recogniser="Whisper small",
    texts="lower case, no punctuation",
    targets="40",
    conversions="7800",
    trials="195 pairs of a target's recordings; each conversion with one of them",
)
_OFFSET = Protocol(**(vars(_LINEARVC) | {"corpus": "LibriSpeech dev-clean"}))
_KNNVC_SOURCE = "arXiv:2305.18975, README of github.com/bshall/knn-vc"
_MKLVC = Protocol(reference="5 to 10 s")
PUBLISHED = (
    Published(
        "kNN-VC",
        {"wer": 6.29, "cer": 2.34, "eer_per_target": 35.73},
        _KNNVC,
        _KNNVC_SOURCE,
    ),
    Published(
        "kNN-VC, vocoder not prematched",
        {"wer": 6.39, "cer": 2.41, "eer_per_target": 32.55},
        _KNNVC,
        _KNNVC_SOURCE,
    ),
    Published(
        "kNN-VC, by LinearVC's authors",
        {"wer": 5.57, "cer": 2.87, "eer_per_target": 38.97},
        Protocol(**(vars(_LINEARVC) | {"reference": ALL_SPEECH})),
        "github.com/kamperh/linearvc, experiments_libri.ipynb",
    ),
    Published(
        "LinearVC",
        {"wer": 4.94, "cer": 2.57, "eer_per_target": 33.6},
        _LINEARVC,
        "arXiv:2506.01510",
    ),
    Published(
        "LinearVC, an offset alone",
        {"wer": 5.09, "cer": 2.99, "eer_per_target": 7.77},
        _OFFSET,
        "github.com/kamperh/linearvc, log.md, 2024-12-06",
    ),
    Published("kNN-VC, by MKL-VC's authors", {"wer": 32.3}, _MKLVC, "arXiv:2506.09709"),
    Published("MKL-VC", {"wer": 8.1}, _MKLVC, "arXiv:2506.09709"),
)

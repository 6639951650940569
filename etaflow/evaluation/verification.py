"""What figures of speaker verification rest on, in words: those of a run, and published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTES = {
    "eer": "equal error rate, % of the trials of a class: as many non-targets accepted as targets "
    "rejected, interpolated between neighbouring thresholds; lower is better",
    "min_dcf_0.01": "detection cost at the best threshold if 1 in 100 trials were a target, both "
    "errors costing the same; 1 is what deciding without scores costs",
    "min_dcf_0.05": "the same if 1 in 20 trials were a target",
    "act_dcf_0.01": "the same cost as min_dcf_0.01, at the threshold that calibrated scores call "
    "for; the distance from it is what calibration loses",
    "act_dcf_0.05": "likewise if 1 in 20 trials were a target",
    "cllr": "cost of the log-likelihood ratios, bits: 0 is perfect, 1 says nothing",
}
PROTOCOL = (
    "Recordings are heard whole and untrimmed, but where a system says otherwise; Resemblyzer "
    "leaves long pauses out. Encoders that were trained elsewhere may have heard the speakers of "
    "a list: SpeechBrain's ECAPA-TDNN and x-vector learnt from those of Vox1-E and Vox1-H. "
    "Intervals are by bootstrap over speakers, each drawn with all their trials"
)


def trials_words(summary: Mapping[str, Any]) -> str:
    """What a list of trials is, and what was left out of it.

    Args:
        summary: as `make_trials` writes it: `targets`, `nontargets`, `utterances`, `speakers`,
            `repeated` and `of_one_file` (numbers of trials), `excluded` (numbers of `trials`,
            names of `recordings`), `source` (a `list`, or how trials were drawn).
    """
    source = summary["source"]
    if "list" in source:
        origin = f"as the list {source['list']} has them"
    else:
        sessions = ", targets across sessions" if source["across_sessions"] else ""
        origin = f"drawn from the {source['split']} split (seed {source['seed']}{sessions})"
    words = (
        f"{summary['targets']} target and {summary['nontargets']} non-target trials of "
        f"{summary['utterances']} utterances by {summary['speakers']} speakers, {origin}"
    )
    if summary["repeated"]:
        words += f"; {summary['repeated']} of them repeat another"
    if summary["of_one_file"]:
        words += f"; {summary['of_one_file']} of them compare a file with itself or a copy of it"
    excluded = summary["excluded"]
    if excluded["trials"]:
        words += (
            f"; {excluded['trials']} trials left out, since {len(excluded['recordings'])} "
            "recordings are not at hand"
        )
    return words


def system_words(entry: Mapping[str, Any], corpora: Sequence[str]) -> str:
    """How a system scores.

    Args:
        entry: `average`, names of systems; or `encoder`, `max_seconds` and `as_norm`, each of the
            last two None if not in use.
        corpora: that the encoder was trained on in this run.
    """
    if "average" in entry:
        return f"the mean of the scores of {' and '.join(entry['average'])}, as they are"
    words = f"cosines of embeddings by {entry['encoder']}"
    if corpora:
        words += f", which is trained here on {' and '.join(corpora)}"
    if entry["max_seconds"] is not None:
        words += f", of the first {entry['max_seconds']:g} s of each recording"
    if entry["as_norm"]:
        norm = entry["as_norm"]
        words += f", normalised by the {norm['topk']} nearest training speakers of {norm['cohort']}"
    return words


def calibration_words(fitted_on: Mapping[str, Any], features: Sequence[str]) -> str:
    """What a calibration was fitted on.

    Args:
        fitted_on: see `Calibration`.
        features: likewise.
    """
    norm = fitted_on["as_norm"]
    by = [f"scores normalised by the nearest {norm['topk']} of {norm['cohort']}"] if norm else []
    seconds = fitted_on["max_seconds"]
    by += [f"the first {seconds:g} s of each recording"] if seconds else []
    by += [name.replace("_", " ") for name in features[1:]]
    return (
        f"{fitted_on['targets']} target and {fitted_on['nontargets']} non-target trials of "
        f"{fitted_on['trials']}{', with ' if by else ''}{', '.join(by)}"
    )


@dataclass(frozen=True)
class PublishedRates:
    """Equal error rates, %, of a system on lists of VoxCeleb1 (cleaned), as others measured."""

    system: str
    rates: Mapping[str, float]  # by list
    trained_on: str
    scoring: str
    source: str


LISTS = ("Vox1-O", "Vox1-E", "Vox1-H")


def _unispeech(system: str, *rates: float) -> PublishedRates:
    return PublishedRates(
        system,
        dict(zip(LISTS, rates, strict=True)),
        "VoxCeleb2 dev (arXiv:2110.13900)",
        "not stated there",
        "github.com/microsoft/UniSpeech, downstreams/speaker_verification/README.md",
    )


def _wespeaker(system: str, *rates: float) -> PublishedRates:
    return PublishedRates(
        system,
        dict(zip(LISTS, rates, strict=True)),
        "VoxCeleb2 dev",
        "cosine, mean subtracted, AS-Norm (300)",
        "github.com/wenet-e2e/wespeaker, examples/voxceleb/v2/README.md",
    )


PUBLISHED = (
    _unispeech("ECAPA-TDNN", 1.080, 1.200, 2.127),
    _unispeech("HuBERT Large, frozen, and ECAPA-TDNN", 0.888, 0.912, 1.853),
    _unispeech("WavLM Base (Base+ in the paper), frozen, and ECAPA-TDNN", 0.84, 0.928, 1.758),
    _unispeech("WavLM Large, frozen, and ECAPA-TDNN", 0.75, 0.764, 1.548),
    _unispeech("HuBERT Large, tuned, and ECAPA-TDNN", 0.585, 0.654, 1.342),
    _unispeech("WavLM Large, tuned, and ECAPA-TDNN", 0.431, 0.538, 1.154),
    PublishedRates(
        "ECAPA-TDNN, SpeechBrain",
        {"Vox1-O": 0.69},
        "VoxCeleb1 and 2 dev",
        "cosine, its list not said to be the cleaned one",
        "github.com/speechbrain/speechbrain, recipes/VoxCeleb/SpeakerRec/README.md",
    ),
    _wespeaker("x-vector, WeSpeaker", 1.835, 1.822, 3.110),
    _wespeaker("ECAPA-TDNN (512), WeSpeaker", 1.026, 1.154, 2.089),
    _wespeaker("ResNet34, WeSpeaker", 0.899, 1.064, 1.856),
    PublishedRates(
        "WavLM Large, tuned, and MHFA",
        dict(zip(LISTS, (0.649, 0.610, 1.235), strict=True)),
        "VoxCeleb2 dev",
        "cosine, mean subtracted, AS-Norm",
        "github.com/BUTSpeechFIT/wespeaker_ssl_public, examples/voxceleb/v4/README.md",
    ),
)

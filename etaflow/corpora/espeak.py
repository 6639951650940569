"""Hours of synthetic speech in many voices and languages, to pretrain small models on.

No voice is one that `mini` evaluates with: their variants of eSpeak NG are disjoint.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etaflow.corpora import synthesis
from etaflow.corpora._espeak import Speech
from etaflow.corpora.base import CorpusError, Recording
from etaflow.corpora.pseudowords import LANGUAGES, is_english, sentences
from etaflow.corpora.synthesis import OCTAVES, Utterance

# The variants of eSpeak NG that no speaker of `mini` uses, without whispers, croaks, echoes and
# robots (Demonic, RicishayMax3, UniRobot, anikaRobot, announcer, croak, robosoft to robosoft8,
# whisper, whisperf), without `fast`, the plain voice under another name, and without those that
# Resemblyzer takes for a variant of `mini`, at a cosine over 0.955: adam, klatt, miguel, robert.
MEN = (
    "Denis",
    "Diogo",
    "Gene",
    "Henrique",
    "Mario",
    "Mr serious",
    "Tweaky",
    "benjamin",
    "edward2",
    "grandpa",
    "gustave",
    "iven2",
    "iven3",
    "klatt4",
    "m1",
    "m4",
    "m5",
    "m6",
    "max",
    "mike2",
    "quincy",
)
WOMEN = ("linda", "steph")
# Few variants are women: each speaks four times a round, at a pitch and rate of its own.
ROUND = MEN + 4 * WOMEN
# The numbers of pitches and of rates have no common divisor: a variant meets every pair.
PITCHES = range(10, 91, 5)
RATES = range(120, 181, 5)
# Played faster or slower than spoken, a variant is another throat. The first round is as spoken.
SPEEDS = (0.82, 0.88, 0.94, 1.06, 1.12, 1.2)
# And through an equaliser of its own, another voice and microphone: dB an octave, either way, and
# the standard deviation of each octave's own gain, dB.
TILT, UNEVENNESS = 3.0, 4.0
MAX_SPEAKERS = len(PITCHES) * len(RATES) // 4 * len(ROUND)
SESSION = "0"


@dataclass(frozen=True)
class Speaker:
    """Who speaks what, and how; see `_espeak.Speech` for the units.

    The rate is that of the recording, the pitch that before it is played at another speed. The
    gains are those of `synthesis.equalise`.
    """

    speaker_id: str
    language: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int
    speed: float
    gains: tuple[float, ...]


def _shuffled(values: range | tuple[str, ...], name: str) -> list[Any]:
    return random.Random(name).sample(values, len(values))


def _draw_gains(source: random.Random) -> tuple[float, ...]:
    tilt, middle = source.uniform(-TILT, TILT), (len(OCTAVES) - 1) / 2
    return tuple(
        round(tilt * (octave - middle) + source.gauss(0, UNEVENNESS), 1)
        for octave in range(len(OCTAVES))
    )


def draw_speaker(number: int, languages: list[str], seed: int) -> Speaker:
    """The speaker of a number, from 0; another number has another variant, pitch or rate.

    Variants come in rounds, each in an order of its own. A variant has another pitch each time
    until it has had them all.
    """
    turn, place = divmod(number, len(ROUND))
    order = _shuffled(ROUND, f"{seed}/round {turn}")
    variant = order[place]
    before = turn * ROUND.count(variant) + order[:place].count(variant)
    language = languages[number % len(languages)]
    return Speaker(
        speaker_id=f"{language}-{number + 1:04d}",
        language=language,
        variant=variant,
        rate=_shuffled(RATES, f"{seed}/{variant}/rate")[before % len(RATES)],
        pitch=_shuffled(PITCHES, f"{seed}/{variant}/pitch")[before % len(PITCHES)],
        pitch_range=random.Random(f"{seed}/{number}").randrange(30, 71),
        speed=random.Random(f"{seed}/{number}/speed").choice(SPEEDS) if turn else 1.0,
        gains=_draw_gains(random.Random(f"{seed}/{number}/gains")) if turn else (),
    )


def _plan(speaker: Speaker, count: int, seed: int) -> list[Utterance]:
    plan = []
    source = random.Random(f"{seed}/{speaker.speaker_id}")
    for index, text in enumerate(sentences(speaker.language, count, source)):
        utterance_id = f"{speaker.speaker_id}-{index:03d}"
        recording = Recording(
            utterance_id,
            speaker.speaker_id,
            SESSION,
            Path(speaker.speaker_id, f"{utterance_id}.wav"),
            # Texts are compared with, and aligned to, what a model of English hears.
            text if is_english(speaker.language) else "",
        )
        speech = Speech(
            text=text + source.choice((".", ".", "?", "!")),
            voice=f"{LANGUAGES[speaker.language].voice}+{speaker.variant}",
            rate=round(speaker.rate / speaker.speed),
            pitch=speaker.pitch,
            pitch_range=speaker.pitch_range,
            speed=speaker.speed,
        )
        plan.append(Utterance(recording, speech, speaker.gains))
    return plan


def fetch(root: Path, config: Mapping[str, Any], workers: int = 1) -> None:
    """Synthesise `speakers` speakers, of `languages` in turn, with `sentences` texts each.

    The files of a speaker depend on `languages`, `sentences` and `seed` alone, byte for byte: fewer
    speakers are the first of more.

    Raises:
        CorpusError: a language is unknown or none is given, more speakers are asked for than there
            are, or the synthesis fails.
    """
    languages = list(config["languages"])
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or not languages:
        given = f"languages {', '.join(unknown)}" if unknown else "no languages"
        raise CorpusError(f"{given}: those of kind espeak are {', '.join(LANGUAGES)}")
    if not 1 <= config["speakers"] <= MAX_SPEAKERS:
        raise CorpusError(
            f"{config['speakers']} speakers: a corpus of kind espeak has 1 to {MAX_SPEAKERS}"
        )
    speakers = [
        draw_speaker(number, languages, config["seed"]) for number in range(config["speakers"])
    ]
    plans = {
        speaker.speaker_id: _plan(speaker, config["sentences"], config["seed"])
        for speaker in speakers
    }
    synthesis.synthesise(root, plans, workers)


recordings = synthesis.recordings

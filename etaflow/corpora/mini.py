"""A small corpus that needs no download: sentences of a closed grammar, spoken by eSpeak NG.

A matrix test (Hagerman 1982): name, verb, number, adjective, noun, ten words each, so that a
recogniser that knows the grammar understands synthetic speech. The words are in the CMU dictionary
and hard to take for each other; the first 16 speakers are voice variants that PocketSphinx
understands and that a speaker encoder tells apart. The others are there for speaker verification:
only the second is true of them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etaflow.corpora import synthesis
from etaflow.corpora._espeak import Speech
from etaflow.corpora.base import CorpusError, Recording
from etaflow.corpora.synthesis import Utterance

VOCABULARY: tuple[tuple[str, ...], ...] = (
    ("alan", "barry", "kathy", "lucy", "nina", "peter", "rachel", "steven", "thomas", "wendy"),
    ("bought", "found", "gives", "has", "likes", "moved", "ordered", "sees", "sold", "wants"),
    ("two", "three", "four", "five", "six", "seven", "eight", "ten", "eleven", "sixty"),
    ("large", "small", "old", "dark", "heavy", "cheap", "green", "red", "pretty", "thin"),
    (
        "lemons",
        "chairs",
        "tables",
        "toys",
        "spoons",
        "windows",
        "sofas",
        "rings",
        "bottles",
        "flowers",
    ),
)


@dataclass(frozen=True)
class Speaker:
    """How a speaker speaks; see `_espeak.Speech` for the units."""

    speaker_id: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int = 50


# Women and men in turn, so that the first few are both.
SPEAKERS = (
    Speaker("woman01", "f2", 140, 50),
    Speaker("man01", "edward", 135, 45),
    Speaker("woman02", "f5", 150, 80),
    Speaker("man02", "Hugo", 145, 60),
    Speaker("woman03", "aunty", 140, 25),
    Speaker("man03", "david", 145, 60),
    Speaker("woman04", "f1", 140, 35),
    Speaker("man04", "victor", 145, 65),
    Speaker("woman05", "f4", 135, 35),
    Speaker("man05", "caleb", 140, 60),
    Speaker("woman06", "anika", 130, 20, 30),
    Speaker("man06", "m2", 140, 50),
    Speaker("woman07", "f3", 140, 60),
    Speaker("man07", "klatt2", 145, 50),
    Speaker("woman08", "steph3", 145, 20),
    Speaker("man08", "klatt3", 150, 50),
    # To Resemblyzer no two of all 60 are nearer than a cosine of 0.89 (means of 8 sentences), and
    # the two sessions of one are not farther apart. Each next is the farthest from those before.
    Speaker("voice17", "Jacky", 140, 45),
    Speaker("voice18", "iven", 150, 75),
    Speaker("voice19", "sandro", 140, 20),
    Speaker("voice20", "kaukovalta", 140, 20),
    Speaker("voice21", "Marco", 140, 20),
    Speaker("voice22", "travis", 150, 75),
    Speaker("voice23", "rob", 140, 20),
    Speaker("voice24", "AnxiousAndy", 140, 45),
    Speaker("voice25", "Andy", 140, 20),
    Speaker("voice26", "pedro", 140, 45),
    Speaker("voice27", "ian", 150, 75),
    Speaker("voice28", "Reed", 150, 75),
    Speaker("voice29", "marcelo", 150, 75),
    Speaker("voice30", "zac", 150, 75),
    Speaker("voice31", "RicishayMax2", 140, 20),
    Speaker("voice32", "RicishayMax", 150, 75),
    Speaker("voice33", "Storm", 140, 45),
    Speaker("voice34", "Lee", 150, 75),
    Speaker("voice35", "norbert", 150, 75),
    Speaker("voice36", "paul", 150, 75),
    Speaker("voice37", "michel", 140, 20),
    Speaker("voice38", "boris", 150, 75),
    Speaker("voice39", "Alicia", 140, 45),
    Speaker("voice40", "iven4", 140, 20),
    Speaker("voice41", "Nguyen", 150, 75),
    Speaker("voice42", "Gene2", 150, 75),
    Speaker("voice43", "shelby", 140, 20),
    Speaker("voice44", "Andrea", 140, 20),
    Speaker("voice45", "steph2", 150, 75),
    Speaker("voice46", "Mike", 140, 20),
    Speaker("voice47", "pablo", 150, 75),
    Speaker("voice48", "m8", 150, 75),
    Speaker("voice49", "klatt6", 140, 20),
    Speaker("voice50", "grandma", 150, 75),
    Speaker("voice51", "antonio", 140, 45),
    Speaker("voice52", "belinda", 150, 75),
    Speaker("voice53", "john", 150, 75),
    Speaker("voice54", "Michael", 140, 20),
    Speaker("voice55", "Alex", 150, 75),
    Speaker("voice56", "klatt5", 150, 75),
    Speaker("voice57", "m7", 140, 20),
    Speaker("voice58", "m3", 140, 45),
    Speaker("voice59", "ed", 140, 45),
    Speaker("voice60", "Annie", 150, 75),
)
# Change of rate (words a minute) and pitch on another day.
SESSIONS = {"a": (0, 0), "b": (-5, 4)}


def grammar_jsgf() -> str:
    """The grammar of all sentences in the JSpeech Grammar Format."""
    slots = " ".join(f"( {' | '.join(words)} )" for words in VOCABULARY)
    return f"#JSGF V1.0;\ngrammar mini;\npublic <sentence> = {slots} ;\n"


def sentences(speaker_id: str, count: int, seed: int) -> list[str]:
    """What a speaker says: `count` sentences that use the words of each slot equally often, ±1."""
    source = random.Random(f"{seed}/{speaker_id}")
    columns = []
    for words in VOCABULARY:
        column: list[str] = []
        while len(column) < count:
            column += source.sample(words, len(words))
        columns.append(column[:count])
    return [" ".join(words) for words in zip(*columns, strict=True)]


def _plan(speaker: Speaker, count: int, seed: int) -> list[Utterance]:
    """A speaker's utterances, sessions one after another."""
    plan = []
    for index, text in enumerate(sentences(speaker.speaker_id, count, seed)):
        session = list(SESSIONS)[index * len(SESSIONS) // count]
        rate, pitch = SESSIONS[session]
        utterance_id = f"{speaker.speaker_id}-{session}-{index:03d}"
        path = Path(speaker.speaker_id, session, f"{utterance_id}.wav")
        recording = Recording(utterance_id, speaker.speaker_id, session, path, text)
        speech = Speech(
            text=text,
            voice=f"en-us+{speaker.variant}",
            rate=speaker.rate + rate,
            pitch=speaker.pitch + pitch,
            pitch_range=speaker.pitch_range,
        )
        plan.append(Utterance(recording, speech))
    return plan


def fetch(root: Path, config: Mapping[str, Any], workers: int = 1) -> None:
    """Synthesise the first `speakers` speakers with `sentences` sentences each under `root`.

    The files depend on `speakers`, `sentences` and `seed` alone, byte for byte.

    Raises:
        CorpusError: more speakers are asked for than there are, or the synthesis fails.
    """
    if not 1 <= config["speakers"] <= len(SPEAKERS):
        raise CorpusError(
            f"{config['speakers']} speakers: the mini corpus has 1 to {len(SPEAKERS)}"
        )
    plans = {
        speaker.speaker_id: _plan(speaker, config["sentences"], config["seed"])
        for speaker in SPEAKERS[: config["speakers"]]
    }
    synthesis.synthesise(root, plans, workers)


recordings = synthesis.recordings

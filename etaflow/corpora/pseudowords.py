"""Words to be spoken: frequent English ones, and pseudo-words of other languages.

A pseudo-word is pronounceable by the spelling rules of its language and means nothing: what is
wanted is the language's sounds.
"""

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Of the words of PocketSphinx's US-English dictionary, as many as are likeliest to its language
# model, rude ones left out.
FREQUENT = 4000
_RUDE = re.compile(
    r"(?:arse|asshole|bastard|bitch|bullshit|cock|cunt|damn|dick|fag|fuck|motherfuck|nazi|nigg|piss|"
    r"porn|pussy|rape|rapist|sex|shit|slut|whore)[a-z]*|ass"
)


@dataclass(frozen=True)
class Language:
    """How eSpeak NG calls a language, and the letters of a syllable; none of English."""

    voice: str
    onsets: str = ""
    vowels: str = ""
    codas: str = ""


LANGUAGES = {
    "en-us": Language("en-us"),
    "en-us-nyc": Language("en-us-nyc"),
    "en-gb": Language("en"),
    "en-gb-scotland": Language("en-gb-scotland"),
    "en-gb-x-rp": Language("en-gb-x-rp"),
    "en-gb-x-gbclan": Language("en-gb-x-gbclan"),
    "en-gb-x-gbcwmd": Language("en-gb-x-gbcwmd"),
    "en-029": Language("en-029"),
    "de": Language(
        "de",
        "b d f g h k l m n p r s t w z sch st sp br dr kl gr tr pf",
        "a e i o u ä ö ü ei au eu ie",
        "n r l t s m ch ng nd st rt",
    ),
    "fr": Language(
        "fr",
        "b c d f g j l m n p r s t v ch br cr pl tr gr",
        "a e i o u é è ou oi an on in eu au ai",
        "r l s t n que ce",
    ),
    "es": Language(
        "es", "b c d f g j l ll m n ñ p r s t v ch br tr pl gr", "a e i o u ie ue", "n s r l"
    ),
    "it": Language(
        "it", "b c d f g l m n p r s t v z gn br tr pr st", "a e i o u ia io uo", "n r l"
    ),
    "nl": Language(
        "nl",
        "b d f g h k l m n p r s t v w z sch st br kl gr",
        "a e i o u aa ee oo oe ij ui eu ou",
        "n r l t s k ng cht",
    ),
    "pl": Language(
        "pl",
        "b c d g k l ł m n p r s t w z cz sz rz ś ć dz prz st kr",
        "a e i o u y ó ą ę",
        "n k t s r m cz ść",
    ),
    "pt": Language(
        "pt", "b c d f g j l m n p r s t v z lh nh ch br tr", "a e i o u ã ei ou", "r s l m"
    ),
    "pt-br": Language(
        "pt-br", "b c d f g j l m n p r s t v z lh nh ch br tr", "a e i o u ã ei ou", "r s l m"
    ),
    "sv": Language(
        "sv",
        "b d f g h k l m n p r s t v sk st sj tj br kr",
        "a e i o u y å ä ö",
        "n r l t s g ng nd",
    ),
    "da": Language(
        "da", "b d f g h k l m n p r s t v sk st br kr", "a e i o u y å æ ø", "n r l t s g nd"
    ),
    "nb": Language(
        "nb", "b d f g h k l m n p r s t v sk st kj br kr", "a e i o u y å æ ø", "n r l t s ng"
    ),
    "fi": Language(
        "fi", "h j k l m n p r s t v", "a e i o u y ä ö aa ee uu ai ei uo ie yö", "n s t l"
    ),
    "cs": Language(
        "cs", "b d h j k l m n p r s t v z č š ž ř ch st př", "a e i o u á é í ů y ě", "n k t s l m"
    ),
    "hu": Language(
        "hu",
        "b d f g h j k l m n p r s t v z cs sz gy ny zs",
        "a e i o u á é í ó ö ő ü ű",
        "n k t l r m sz",
    ),
    "ro": Language(
        "ro", "b c d f g j l m n p r s t v z ș ț ch st tr", "a e i o u ă â ea oa", "n r l s t"
    ),
    "hr": Language(
        "hr", "b d g h j k l m n p r s t v z č š ž lj nj st tr", "a e i o u", "n k t s r l"
    ),
    "tr": Language(
        "tr", "b c ç d g h k l m n p r s ş t v y z", "a e ı i o ö u ü", "n r l k ş t m z"
    ),
    "id": Language(
        "id", "b c d g h j k l m n p r s t w y ng ny", "a e i o u ai au", "n ng r k s t h"
    ),
    "sw": Language("sw", "b ch d f g h j k l m n p r s t v w y z mb nd ng ny", "a e i o u"),
}


def is_english(language: str) -> bool:
    """Whether a language of `LANGUAGES` is an accent of English."""
    return not LANGUAGES[language].vowels


@cache
def english_words() -> tuple[str, ...]:
    """The `FREQUENT` likeliest words of PocketSphinx's dictionary, of two letters or more."""
    import pocketsphinx

    folder = Path(pocketsphinx.get_model_path(), "en-us")
    model = pocketsphinx.NGramModel.readfile(str(folder / "en-us.lm.bin"))
    lines = (folder / "cmudict-en-us.dict").read_text(encoding="utf-8").splitlines()
    found = {line.split()[0] for line in lines}
    plain = [
        word for word in found if re.fullmatch("[a-z]{2,}", word) and not _RUDE.fullmatch(word)
    ]
    return tuple(sorted(plain, key=lambda word: (-model.prob([word]), word))[:FREQUENT])


def _pseudoword(language: Language, source: random.Random) -> str:
    onsets, vowels = language.onsets.split(), language.vowels.split()
    codas = language.codas.split()
    word = ""
    for _ in range(source.choice((1, 2, 2, 2, 3, 3))):
        word += source.choice(onsets) + source.choice(vowels)
    if codas and source.random() < 0.5:
        word += source.choice(codas)
    return word


def sentences(language: str, count: int, source: random.Random) -> list[str]:
    """Draw `count` texts of 4 to 12 words, in lower case and without punctuation."""
    texts = []
    for _ in range(count):
        length = source.randint(4, 12)
        if is_english(language):
            words = source.sample(english_words(), length)
        else:
            words = [_pseudoword(LANGUAGES[language], source) for _ in range(length)]
        texts.append(" ".join(words))
    return texts

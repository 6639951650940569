"""Texts made comparable, and the errors between them."""

import unicodedata
from collections.abc import Callable
from functools import cache


def normalize_text(text: str) -> str:
    """Lower-case words parted by one space, in any language.

    Whatever is no letter, mark or digit parts words, except apostrophes within a word. Numbers and
    spellings stay as they are.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    words = (word.strip("'") for word in kept.split())
    return " ".join(word for word in words if word)


@cache
def _whisper_normalizer() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    # Its table of British and American spellings comes with Whisper's tokenizer, not with the
    # package; without it, spellings stay as they are.
    normalizer: Callable[[str], str] = EnglishTextNormalizer({})
    return normalizer


def normalize_english(text: str) -> str:
    """English words as Whisper's evaluation counts them (Radford et al. 2022, appendix C).

    On top of case and punctuation: numbers become digits, contractions and titles are written out,
    fillers (`uh`) and what stands in brackets goes. Spellings stay: `colour` is not `color`.
    """
    normal = _whisper_normalizer()(unicodedata.normalize("NFKC", text).replace("\u2019", "'"))
    # A text of stops alone leaves one over.
    return " ".join(word for word in normal.split() if any(map(str.isalnum, word)))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions + deletions + insertions, and the words of the reference.

    Both texts are put through `normalize_english`. An empty hypothesis is all deletions; against an
    empty reference all words are insertions.
    """
    import jiwer

    result = jiwer.process_words(normalize_english(reference), normalize_english(hypothesis))
    spoken = result.hits + result.substitutions + result.deletions
    return result.substitutions + result.deletions + result.insertions, spoken


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """As `word_errors`, in characters, the spaces between words among them."""
    import jiwer

    result = jiwer.process_characters(normalize_english(reference), normalize_english(hypothesis))
    spoken = result.hits + result.substitutions + result.deletions
    return result.substitutions + result.deletions + result.insertions, spoken

"""How large published corpora are: what a run can be planned by before any download.

Sources. LibriSpeech: hours and speakers of table 1 of Panayotov et al. 2015; utterances as
Hugging Face's `librispeech_asr` counts them; downloads of https://www.openslr.org/12. LibriTTS:
Zen et al. 2019 (arXiv 1904.02882), https://www.openslr.org/60. VoxCeleb1: Nagrani et al. 2017,
hours as PaddleSpeech's examples/voxceleb counts them. VCTK 0.92: its speakers with a second
microphone, the download as Hugging Face's `vctk` has it; its hours after trimming were not found.
Kathbath: the README of AI4Bharat/IndicSUPERB (its hours add up to 100 less than the total that it
states); its archives hold all languages. Trials: the lines of VoxCeleb1's cleaned lists.
LibriMix: Cosentino et al. 2020 (arXiv 2005.11262), whose hours are those of the mode `max`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A published subset: hours of speech, gigabytes (10⁹ bytes) to download; None: not known."""

    split: str
    hours: float | None
    utterances: int | None
    speakers: int
    gigabytes: float | None


LIBRISPEECH = {
    "dev-clean": Size("test", 5.4, 2703, 40, 0.337),
    "dev-other": Size("test", 5.3, 2864, 33, 0.314),
    "test-clean": Size("test", 5.4, 2620, 40, 0.346),
    "test-other": Size("test", 5.1, 2939, 33, 0.328),
    "train-clean-100": Size("train", 100.6, 28_539, 251, 6.3),
    "train-clean-360": Size("train", 363.6, 104_014, 921, 23.0),
    "train-other-500": Size("train", 496.7, 148_688, 1166, 30.0),
}
LIBRITTS = {
    "dev-clean": Size("test", 8.97, 5736, 40, 1.2),
    "dev-other": Size("test", 6.43, 4613, 33, 0.924),
    "test-clean": Size("test", 8.56, 4837, 39, 1.2),
    "test-other": Size("test", 6.69, 5120, 33, 0.964),
    "train-clean-100": Size("train", 53.78, 33_236, 247, 7.7),
    "train-clean-360": Size("train", 191.29, 116_500, 904, 27.0),
    "train-other-500": Size("train", 310.08, 205_044, 1160, 44.0),
}
VOXCELEB1 = {
    "dev": Size("train", 340.4, 148_642, 1211, None),
    "test": Size("test", 11.2, 4874, 40, None),
}
VCTK = {"mic2": Size("train", None, None, 109, 11.7)}
_KATHBATH_HOURS_SPEAKERS = {
    "bengali": (115.8, 46),
    "gujarati": (129.3, 79),
    "hindi": (150.2, 121),
    "kannada": (65.8, 79),
    "malayalam": (147.3, 32),
    "marathi": (185.2, 143),
    "odia": (111.6, 42),
    "punjabi": (136.9, 142),
    "sanskrit": (115.5, 205),
    "tamil": (185.1, 158),
    "telugu": (154.9, 104),
    "urdu": (86.7, 67),
}
KATHBATH = {
    language: Size("train", hours, None, speakers, 92.0)
    for language, (hours, speakers) in _KATHBATH_HOURS_SPEAKERS.items()
}
SOURCES = {
    "librispeech": "LibriSpeech paper, table 1",
    "libritts": "LibriTTS paper, table 2",
    "voxceleb1": "VoxCeleb paper; hours by PaddleSpeech",
    "vctk": "VCTK 0.92",
    "kathbath": "IndicSUPERB README",
    "mini": "speakers × sentences × 2.2 s",
    "espeak": "speakers × sentences × 3.9 s",
}
# Of a sentence: the means of the 864 of config.yaml's corpora, and of 120 speakers with 60 in ten
# languages. What is spoken by eSpeak NG is the same everywhere.
SPOKEN_SECONDS = {"mini": 2.18, "espeak": 3.94}
TRIALS = {"vox1-o": 37_611, "vox1-e": 579_818, "vox1-h": 550_894}
# Mixtures, and hours at most: of `max`; those of `min` are shorter.
MIXTURES = {
    "libri2mix_train-clean-360": (50_800, 212.0),
    "libri2mix_train-clean-100": (13_900, 58.0),
    "libri2mix_dev-clean": (3000, 11.0),
    "libri2mix_test-clean": (3000, 11.0),
    "libri3mix_train-clean-360": (33_900, 146.0),
    "libri3mix_train-clean-100": (9300, 40.0),
    "libri3mix_dev-clean": (3000, 11.0),
    "libri3mix_test-clean": (3000, 11.0),
}
WHAM_GIGABYTES = 35.0  # unpacked; the archive beside it, while it is unpacked, has 17

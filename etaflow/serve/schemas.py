"""What the JSON of the API holds, with examples for its documentation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from etaflow.serve.messages import MAX_TOPK

# The beginning of a WAV file; a whole one would fill pages.
EXAMPLE = "UklGRiR9AABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQB9AAA..."
Encoded = Annotated[
    str, Field(description="base64 of a WAV, FLAC, Ogg or MP3 file", examples=[EXAMPLE])
]
Wav = Annotated[str, Field(description="base64 of a WAV file", examples=[EXAMPLE])]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PredictRequest(_Model):
    """The original contract: source and reference."""

    audio1: Encoded
    audio2: Encoded


class PredictResponse(_Model):
    """The original contract: the source in the reference's voice."""

    output_wav_b64: Wav


class ConvertOptions(_Model):
    """How a conversion is made, and written."""

    method: str | None = Field(
        None, description="of /v1/health; null: the server's default", examples=["knn"]
    )
    topk: int = Field(4, ge=1, le=MAX_TOPK, description="neighbours a frame", examples=[4])
    format: Literal["wav", "flac"] = "wav"


class ConvertRequest(ConvertOptions):
    """A source whose words are kept, and recordings of the target speaker."""

    source: Encoded
    references: list[Encoded]


class ConvertResponse(_Model):
    """A conversion, as long as its source."""

    audio: Wav
    format: Literal["wav", "flac"]
    sample_rate: int = Field(examples=[16000])
    seconds: float = Field(examples=[4.2])
    method: str = Field(examples=["knn"])
    topk: int = Field(examples=[4])
    weights: str = Field(description="trained, published or untrained", examples=["trained"])


class AnalyzeRequest(_Model):
    """A recording to split into speaker and rest."""

    recording: Encoded


class VerifyRequest(_Model):
    """Two recordings."""

    one: Encoded
    other: Encoded


class VerifyResponse(_Model):
    """Whether they are of one speaker: whether the score reaches the threshold."""

    same_speaker: bool
    score: float = Field(examples=[0.81])
    unit: str = Field(examples=["cosine"])
    threshold: float = Field(examples=[0.68])
    system: str = Field(examples=["resemblyzer"])
    trials: dict[str, Any] = Field(description="what the threshold was set on")
    weights: str = Field(examples=["published"])


class SeparateRequest(_Model):
    """A recording of several speakers at once."""

    mixture: Encoded


class SeparateResponse(_Model):
    """A WAV file of 32-bit float for each speaker, of the mixture's rate and length."""

    sources: list[Wav]
    sample_rate: int = Field(examples=[8000])
    seconds: float = Field(examples=[4.2])
    weights: str = Field(examples=["trained"])


class Error(BaseModel):
    """Why a request was not answered as asked."""

    detail: str = Field(examples=["the source is silent: its mono signal never exceeds -80 dBFS"])

"""What a server allows: limits, workers, batches. Each has a default; a YAML file changes some."""

from pathlib import Path

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)


class SettingsError(ValueError):
    """A file of settings that cannot be used."""


class Settings(BaseModel):
    """The limits of a server, and how it computes; `config/serve.yaml` says what each is for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    max_payload_mb: PositiveFloat = 16.0  # of a request's body
    max_seconds: PositiveFloat = 60.0  # of a recording
    max_references: PositiveInt = 10
    max_requests: PositiveInt = 64  # at a time, waiting ones among them
    timeout_seconds: PositiveFloat = 120.0  # from when a request was read to its answer
    body_seconds: PositiveFloat = 30.0  # for a body to arrive
    workers: PositiveInt = 1  # processes a device, each with all models
    batch: PositiveInt = 8  # requests that are computed together, at most
    batch_wait_seconds: NonNegativeFloat = 0.02
    cache_mb: NonNegativeFloat = 512.0  # features of references, a worker
    threads: PositiveInt | None = None  # of a worker on a CPU; None: the cores shared evenly
    public: bool = False  # whether anybody may use a server that other machines can reach

    @property
    def max_payload_bytes(self) -> int:
        """Of a request's body."""
        return int(self.max_payload_mb * 1e6)


def read_settings(path: str | Path | None) -> Settings:
    """Read a YAML file of settings; what it does not name, or all without a file, is default.

    Raises:
        SettingsError: the file is missing or no YAML, or a setting is unknown, or not of its range.
    """
    if path is None:
        return Settings()
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        return Settings.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
            for each in error.errors()
        )
        raise SettingsError(f"{path}: {wrong}") from error

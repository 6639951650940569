"""The model registry: where weights come from, and how far to trust them.

A model is an entry of the config's `models` and, once fetched, a folder with a `model.json` that
says what it is. Sources: `huggingface` (a repository at a pinned revision), `path` (a folder that
exists), `url` (one file), `package` (weights inside an installed Python package, or in the bundle
that comes with etaflow), `run` (trained by this workflow) and `random` (a small architecture with
seeded random weights, written in the same format as a downloaded one, so that the code which loads
it is the real one).
"""

import json
from dataclasses import dataclass
from pathlib import Path

# The worst of a path comes first.
WEIGHTS = ("untrained", "published", "trained")


class ModelError(ValueError):
    """A registry entry or a model folder that cannot be used."""


@dataclass(frozen=True)
class ModelInfo:
    """What `model.json` holds."""

    name: str
    source: str
    architecture: str
    revision: str
    weights: str
    path: str  # of the files: absolute, or relative to the folder of `model.json`


def worst_weights(labels: list[str]) -> str:
    """The label to print beside a number that all these models had a part in."""
    return min(labels, key=WEIGHTS.index)


def read_model_info(directory: str | Path) -> tuple[ModelInfo, Path]:
    """The `model.json` of a folder, and the folder that holds the model's files.

    Raises:
        ModelError: there is no `model.json`, or is damaged, or the files it points to are gone.
    """
    directory = Path(directory)
    try:
        info = ModelInfo(**json.loads((directory / "model.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{directory} holds no model.json; name a folder that fetch_model or a training made"
        ) from error
    except (TypeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{directory}/model.json is not what fetch_model wrote: {error}"
        ) from error
    files = directory / info.path
    if not files.is_dir():
        raise ModelError(f"{directory}: the model's files are gone from {files}")
    return info, files

"""What a bundle can do, read without its models: the server and its page say so."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from etaflow.bundles import FILES, FORMAT, METRICS, SEPARATOR, VERIFIER
from etaflow.hub import pretrained_folder
from etaflow.manifest import read_table
from etaflow.methods import possible_methods

TABLES = ("conversion", "verification", "separation")


class BundleError(ValueError):
    """A folder that is no bundle, or one that cannot be served."""


@dataclass(frozen=True)
class ServedBundle:
    """A bundle as far as the process that answers requests knows it.

    Attributes:
        folder: of the bundle.
        run: that made it.
        weights: of each task that it can do, `convert`, `analyze`, `verify` and `separate`, how far
            to trust the models, see `etaflow.models.WEIGHTS`.
        methods: of conversion that it can do.
        card: its model card, Markdown.
        trained_on: the corpora of each part, see `etaflow.cards.corpus_facts`; None: the bundle
            does not say.
        metrics: the run's tables, by name; see `etaflow.evaluation.tables`.
    """

    folder: Path
    run: str
    weights: Mapping[str, str]
    methods: tuple[str, ...]
    card: str
    trained_on: Mapping[str, Sequence[Mapping[str, Any]]] | None
    metrics: Mapping[str, pd.DataFrame]

    @property
    def method(self) -> str:
        """The method of a conversion that names none, and of the original contract.

        The source through Eta-WavLM and the references by kNN-VC, where the bundle can.
        """
        wanted = ("knn-eta-source", "knn-eta", "knn")
        return next(name for name in wanted if name in self.methods)

    @classmethod
    def read(cls, source: str) -> "ServedBundle":
        """Read the facts of a bundle: a folder, or a repository as for `VoiceConverter`.

        Raises:
            HubError: there is neither such a folder nor such a repository.
            BundleError: it is no bundle, or is damaged.
        """
        folder = pretrained_folder(source, FILES)
        try:
            config = _read_json(folder / "config.json")
            if config.get("format") != FORMAT:
                raise BundleError(f"{source}: format {config.get('format')!r}, expected {FORMAT}")
            with_eta = bool(config.get("eta", True))
            vocoder = _read_json(folder / "vocoder" / "config.json")["trained_on"]
            weights = {"convert": config["weights"]}
            if with_eta:
                weights["analyze"] = config["weights"]
            if (folder / VERIFIER).is_dir():
                stored = _read_json(folder / VERIFIER / "verifier.json")
                weights["verify"] = stored["trials"]["weights"]
            if (folder / SEPARATOR).is_dir():
                weights["separate"] = _read_json(folder / SEPARATOR / "model.json")["weights"]
            tables = {name: folder / METRICS / f"{name}.tsv" for name in TABLES}
            return cls(
                folder,
                str(config["run"]),
                weights,
                tuple(possible_methods(with_eta, vocoder.get("features") == "eta")),
                _card(folder / "README.md"),
                config.get("trained_on"),
                {name: read_table(path) for name, path in tables.items() if path.is_file()},
            )
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(
                f"{source} is no bundle, or a damaged one ({type(error).__name__}: {error})"
            ) from error


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _card(path: Path) -> str:
    """The text of a model card, without the front matter that is for the Hub."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).strip()

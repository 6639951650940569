"""SpeechBrain's `hyperparams.yaml` read as data: nothing that it names is made or called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from etaflow.models import ModelError

_REFERENCE = re.compile(r"<([A-Za-z_]\w*)>")


@dataclass(frozen=True)
class Tagged:
    """A value with a tag such as `!new:package.Class`, `!ref` or `!apply:function`."""

    tag: str  # without the exclamation mark
    value: Any


class _PlainLoader(yaml.SafeLoader):
    """Makes plain values of everything, and `Tagged` of what has a tag of its own."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.MappingNode):
        return Tagged(tag, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(tag, loader.construct_sequence(node, deep=True))
    return Tagged(tag, loader.construct_scalar(node))  # type: ignore[arg-type]


_PlainLoader.add_multi_constructor("!", _tagged)


class Hyperparameters:
    """The entries of such a file, references to other entries followed."""

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            ModelError: it is missing, or no YAML with names at its top.
        """
        self.path = path
        try:
            self._entries = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing") from error
        # The last three: bytes that are no text, a key that is a list, and what is nested too deep.
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{path} is damaged ({error})") from error
        if not isinstance(self._entries, dict):
            raise ModelError(f"{path} is damaged (no names at its top)")

    def get(self, name: str) -> Any:
        """The value of an entry.

        Raises:
            ModelError: there is no such entry, or it refers to one that there is not.
        """
        return self._follow(Tagged("ref", f"<{name}>"), name)

    def arguments(self, value: Any, name: str, wanted: str, known: Mapping[str, Any]) -> Any:
        """The arguments of an object that would be made, with the defaults for those not given.

        Args:
            value: `!new:wanted` or a reference to it.
            name: of the object, for errors.
            wanted: its class, with the package.
            known: by name, the defaults; `...` for what has to be given.

        Raises:
            ModelError: it is an object of another class, or an argument is missing, unknown or not
                of the type of its default.
        """
        made = self._follow(value, name)
        tag = made.tag if isinstance(made, Tagged) else "none"
        if tag != f"new:{wanted}":
            raise ModelError(f"{self.path}: {name} is {tag}, not new:{wanted}")
        given = made.value if isinstance(made.value, dict) else {}
        if unknown := [key for key in given if key not in known]:
            raise ModelError(f"{self.path}: {name} has an unknown argument {unknown[0]!r}")
        merged = {**known, **{key: self._follow(given[key], f"{name}.{key}") for key in given}}
        for key, default in known.items():
            if merged[key] is ...:
                raise ModelError(f"{self.path}: {name} has no {key}")
            kinds = (int, float) if isinstance(default, float) else type(default)
            if default is not ... and not isinstance(merged[key], kinds):
                raise ModelError(
                    f"{self.path}: {name}.{key} is {merged[key]!r}, no {type(default).__name__}"
                )
        return merged

    def _follow(self, value: Any, name: str) -> Any:
        seen = set()
        while isinstance(value, Tagged) and value.tag == "ref":
            match = _REFERENCE.fullmatch(str(value.value))
            target = match[1] if match else None
            if target not in self._entries or target in seen:
                raise ModelError(f"{self.path}: {name} refers to {value.value!r}, which is nothing")
            seen.add(target)
            value = self._entries[target]
        return value

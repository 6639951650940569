"""The names of conversion methods, and which of them a bundle can do."""

import contextlib
import re
from dataclasses import dataclass

METHOD = re.compile(r"copy|(?P<steps>knn|linear|mkl|mkl\+knn)(?P<space>-eta(?:-source)?)?")
METHOD_WORDS = "copy, knn, linear, mkl, mkl+knn, and the last four with -eta or -eta-source behind"


class ConversionError(ValueError):
    """A conversion that cannot be made as asked."""


@dataclass(frozen=True)
class Method:
    """What a method's name says: `mkl+knn-eta` has the steps mkl and knn, and the space eta.

    Steps, one after the other:
        knn: kNN-VC (Baas et al. 2023, arXiv 2305.18975): each frame becomes the mean of its nearest
            reference frames.
        linear: LinearVC (Kamper et al. 2025, arXiv 2506.01510): one affine map, fitted on pairs of
            nearest neighbours.
        mkl: MKL-VC (Lobashev et al. 2025, arXiv 2506.09709): optimal transport between Gaussians,
            in closed form; for references under a minute.
        With both mkl and knn the first brings frames near the target's, the second takes real ones.
    No step (`copy`): the source's own frames, which shows what the vocoder can do.

    Spaces:
        raw: the features as they are.
        eta-source: the source's speaker component (Eta-WavLM, arXiv 2505.19273) gives way to the
            average one, so that b stays on both sides; references are raw.
        eta: both sides without their speaker components; the target's is added back at the end.
    """

    name: str
    steps: tuple[str, ...]
    space: str

    @property
    def needs_eta(self) -> bool:
        """Whether it needs an Eta model and speaker embeddings."""
        return self.space != "raw"


def parse_method(name: str) -> Method:
    """Read a method's name; another than those of `METHOD_WORDS` raises `ConversionError`."""
    found = METHOD.fullmatch(name)
    if not found:
        raise ConversionError(f"method {name!r}: there are {METHOD_WORDS}")
    steps = tuple((found["steps"] or "").split("+")) if found["steps"] else ()
    return Method(name, steps, (found["space"] or "-raw")[1:])


def possible_method(name: str, with_eta: bool, reads_eta: bool) -> Method:
    """Read a method's name and check that a bundle can do it.

    Args:
        name: of the method.
        with_eta: whether there is an Eta model.
        reads_eta: whether the vocoder was trained on eta features.

    Raises:
        ConversionError: there is no such method, it needs an Eta model and there is none, or the
            vocoder reads other features.
    """
    method = parse_method(name)
    if not with_eta and (method.needs_eta or reads_eta):
        raise ConversionError(f"{name} needs an Eta model, and there is none")
    if reads_eta and method.steps == ():
        return Method(name, (), "eta")
    if reads_eta and method.space != "eta":
        raise ConversionError(
            f"{name}: the vocoder was trained on eta features; use copy, or a method that ends "
            "in -eta"
        )
    return method


def possible_methods(with_eta: bool, reads_eta: bool) -> list[str]:
    """The names of the methods that `possible_method` takes, the plain ones first."""
    names = ["copy"]
    for space in ("", "-eta-source", "-eta"):
        names += [steps + space for steps in ("knn", "linear", "mkl", "mkl+knn")]
    found = []
    for name in names:
        with contextlib.suppress(ConversionError):
            found.append(possible_method(name, with_eta, reads_eta).name)
    return found

"""Methods of conversion: how the frames of a source become those of a target's voice."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etaflow.eta import EtaModel
from etaflow.knn import Pool
from etaflow.mappings import fit_linear, fit_transport
from etaflow.store import Floats, unit_rows

METHOD = re.compile(r"copy|(?P<steps>knn|linear|mkl|mkl\+knn)(?P<space>-eta(?:-source)?)?")
METHOD_WORDS = "copy, knn, linear, mkl, mkl+knn, and the last four with -eta or -eta-source behind"

Mapping = Callable[[torch.Tensor], torch.Tensor]


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


def mean_embedding(embeddings: Floats) -> Floats:
    """The mean direction (V,) of embeddings (R, V), at the length that single ones have."""
    direction = unit_rows(embeddings).mean(axis=0, keepdims=True)
    return unit_rows(direction)[0] * np.linalg.norm(embeddings, axis=1).mean()


class Voice:
    """A target's references, made ready once for all sources that are to be mapped to them."""

    def __init__(
        self,
        method: Method,
        references: Sequence[Floats] = (),
        embeddings: Floats | None = None,
        eta: EtaModel | None = None,
        topk: int = 4,
        device: str | torch.device = "cpu",
        keep_eta: bool = False,
    ) -> None:
        """Prepare a target.

        Args:
            method: what to do.
            references: features (T_r, D) of each reference, one or more unless the method is copy.
            embeddings: (R, V), one a reference, for methods in eta space.
            eta: for methods that need one.
            topk: neighbours a frame, for knn.
            device: where to compute.
            keep_eta: stay in eta space at the end, for a vocoder that reads eta features.

        Raises:
            ConversionError: an Eta model, references or embeddings are missing.
            MatchError: a reference frame is not finite.
        """
        self.method, self.eta, self.topk, self.device = method, eta, topk, device
        if method.needs_eta and eta is None:
            raise ConversionError(f"{method.name} needs an Eta model")
        if method.steps and not references:
            raise ConversionError(f"{method.name} needs a reference")
        self._after: Floats | float = 0.0
        frames = list(references)
        if method.space == "eta" and method.steps:
            if eta is None or embeddings is None:
                raise ConversionError(f"{method.name} needs the references' embeddings")
            frames = [
                eta.remove_speaker(features, embedding)
                for features, embedding in zip(references, embeddings, strict=True)
            ]
            if not keep_eta:
                self._after = eta.speaker_component(mean_embedding(embeddings))
        if method.steps:
            self.pool = Pool(torch.from_numpy(np.concatenate(frames)).float().to(device))

    def _before(self, embedding: Floats | None) -> Floats | float:
        """What is added to the source's frames first."""
        if not self.method.needs_eta:
            return 0.0
        if self.eta is None or embedding is None:
            raise ConversionError(f"{self.method.name} needs the source's embedding")
        component = self.eta.speaker_component(embedding)
        return (
            self.eta.mean_component - component if self.method.space == "eta-source" else -component
        )

    def mapping(self, source: torch.Tensor, embedding: Floats | None = None) -> Mapping:
        """The map from a source's frames (T, D) to the target's, also for frames yet to come.

        Args:
            source: frames (T, D) of the source to fit linear maps and transports on: all, or the
                first minutes.
            embedding: (V,) of the source, for the Eta methods.

        Raises:
            ConversionError: the method needs the source's embedding.
            MappingError: there are too few frames to fit on.
            MatchError: of the map, when there are fewer reference frames than `topk`.
        """
        before, after = (
            torch.as_tensor(np.asarray(shift, np.float32), device=self.device)
            for shift in (self._before(embedding), self._after)
        )
        maps: list[Mapping] = []
        seen = source.float().to(self.device) + before
        for step in self.method.steps:
            if step == "knn":
                maps.append(lambda frames: self.pool.match(frames, self.topk))
            else:
                fit = fit_linear if step == "linear" else fit_transport
                maps.append(fit(seen, self.pool.frames))

        def convert(frames: torch.Tensor) -> torch.Tensor:
            frames = frames.float().to(self.device) + before
            for each in maps:
                frames = each(frames)
            return frames + after

        return convert

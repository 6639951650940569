"""Methods of conversion: how the frames of a source become those of a target's voice."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from etaflow.eta import EtaModel
from etaflow.knn import Pool
from etaflow.mappings import fit_linear, fit_transport
from etaflow.methods import ConversionError, Method
from etaflow.store import Floats, unit_rows

Mapping = Callable[[torch.Tensor], torch.Tensor]


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

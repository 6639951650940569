"""Networks as a row of layers, of which a training may leave the lower ones as they came."""

from typing import Any, Self

from torch import nn


class LayeredNetwork(nn.Module):
    """A network that can be made again from its sizes, and trained in part.

    Attributes:
        layers: its parts from input to output, which `freeze` counts.
        pretrained: how many of the layers, from the input, came with weights; the others are new.
    """

    layers: list[nn.Module]
    pretrained: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []

    def sizes(self) -> dict[str, Any]:
        """What the network is made of, as JSON; with the weights it makes the network again."""
        raise NotImplementedError

    def freeze(self, trained: int | None) -> None:
        """Train only the uppermost `trained` of the pretrained layers, and the new ones.

        Frozen layers get no gradient and stay in evaluation mode, batch statistics among it.

        Args:
            trained: 0 to `pretrained`; None for all.

        Raises:
            ValueError: there are not so many.
        """
        if trained is None:
            trained = self.pretrained
        if not 0 <= trained <= self.pretrained:
            raise ValueError(
                f"{trained} of the pretrained layers to train; there are {self.pretrained}"
            )
        self._frozen = self.layers[: self.pretrained - trained]
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As any module, but for frozen layers."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of the pretrained layers that are trained."""
        layers = self.layers[: self.pretrained]
        return [p for layer in layers for p in layer.parameters() if p.requires_grad]

    def new_parameters(self) -> list[nn.Parameter]:
        """All other parameters that are trained."""
        known = {id(parameter) for parameter in self.pretrained_parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in known]

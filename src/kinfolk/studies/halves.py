"""Half a digit from the other: the network, and auto-encoders of what goes in and of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk.auxiliary import Reconstruction
from kinfolk.auxiliary.base import Auxiliary
from kinfolk.auxiliary.reconstruction import Masking
from kinfolk.data.tasks import Task
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import ACTIVATIONS, Linear

PIXELS = 28 * 14  # of half an image


def halves(images: np.ndarray) -> Tensor:
    """Pixels in [0, 1]: those of the left half, then those of the right one."""
    pixels = torch.tensor(images, dtype=torch.float32) / 255
    return torch.cat([pixels[..., :14].flatten(1), pixels[..., 14:].flatten(1)], 1)


class OfLeftHalf(Sharing):
    """A network that reads the first half of each row."""

    def __init__(self, whole: Sharing) -> None:
        super().__init__()
        self.whole = whole

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> OfLeftHalf:
        """The network, for half as many inputs."""
        self.whole.setup(trunk, tasks, torch.Size([PIXELS]))
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """What it says about the left half."""
        return self.whole(inputs[..., :PIXELS], preference)


class OfInputs(Auxiliary):
    """Left halves from what the trunk's stages make of them."""

    name = "inputs"

    def __init__(self, reconstruction: Reconstruction) -> None:
        super().__init__()
        self.reconstruction = reconstruction

    def setup(self, network: Sharing, trunk: Trunk, inputs: torch.Size) -> OfInputs:
        """The decoders."""
        self.reconstruction.setup(cast(Sharing, network.get_submodule("whole")), trunk, torch.Size([PIXELS]))
        return self

    def forward(self, network: Sharing, inputs: Tensor, outputs: Outputs | None) -> Float[Tensor, "replica row"]:
        """The sum over stages."""
        return self.reconstruction(network.get_submodule("whole"), inputs[..., :PIXELS], None)


class OfOutputs(Auxiliary):
    """Right halves from a code of their own, by the last layer of the network."""

    name = "outputs"

    def __init__(self, corruption: float) -> None:
        super().__init__()
        self.mask = Masking(corruption)

    def setup(self, network: Sharing, trunk: Trunk, inputs: torch.Size) -> OfOutputs:
        """The encoder: a layer as large as the last hidden one."""
        decoder: Any = network.get_submodule("whole.heads.layers.0")
        self.encoder = Linear(PIXELS, decoder.weight.shape[1])
        self.activation = str(getattr(trunk, "activation", "sigmoid"))
        return self

    def forward(self, network: Sharing, inputs: Tensor, outputs: Outputs | None) -> Float[Tensor, "replica row"]:
        """The mean squared error over pixels."""
        right = inputs[..., PIXELS:]
        code = ACTIVATIONS[self.activation](self.encoder(self.mask(right)))
        return (network.get_submodule("whole.heads.layers.0")(code) - right).square().mean(-1)

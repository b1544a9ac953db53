"""Orthogonality: the subspaces of a sluice network are kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.sluice import Sluice
from kinfolk.trunks.stages import Linear


class Orthogonality(Penalty):
    """The subspaces of each task's features shall be read from its inputs by weights that are orthogonal.

    ``strength * sum ||G_a' G_b||^2`` over tasks, stages and pairs of subspaces, where the columns of ``G_a`` are the
    weights of subspace a's features in the stage's last layer. A stage without weights counts nothing.

    Parameters
    ----------
    strength
        Not negative. 0.1 is the authors'.

    Raises
    ------
    ValueError
        For a negative strength, and in ``setup`` for a network without subspaces.

    References
    ----------
    S. Ruder, J. Bingel, I. Augenstein, A. Søgaard (2019). Latent multi-task architecture learning. AAAI, 4822-4829.
    """

    def __init__(self, strength: float | int = 0.1) -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"`strength` must not be negative. Got {strength}.")
        self.strength = float(strength)

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> Orthogonality:
        """Checks that there are subspaces."""
        if not isinstance(model, Sluice):
            raise ValueError(f"`orthogonality` needs a sharing with subspaces: sluice. Got {type(model).__name__}.")
        return self

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """What the subspaces of each replica have in common."""
        if not isinstance(model, Sluice):
            raise TypeError(f"`orthogonality` is for Sluice. Got {type(model).__name__}.")
        whole = losses.new_zeros(len(losses))
        for stage, shape in zip(model.trunks.stages, model.trunks.shapes, strict=True):
            if (weight := last_weight(stage, shape[0])) is not None:
                whole = whole + _overlap(weight, model.subspaces).view(len(losses), -1).sum(1)
        return self.strength * whole


def last_weight(stage: nn.Module, channels: int) -> Tensor | None:
    """``[copy, input, channel]``: the weights of the last layer in a stage that gives its channels."""
    found = None
    for module in stage.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, Linear):
                if parameter is module.weight and parameter.shape[-1] == channels:
                    found = parameter
            elif parameter.ndim > 2 and parameter.shape[1] == channels:  # torch's layers: [copy, channel, input, ...]
                found = parameter.flatten(2).mT
    return found


def _overlap(weight: Float[Tensor, "copy input channel"], subspaces: int) -> Float[Tensor, " copy"]:
    padded = F.pad(weight, (0, -weight.shape[-1] % subspaces))
    parts = padded.unflatten(-1, (subspaces, -1)).unbind(-2)
    whole = weight.sum((1, 2)) * 0  # so that it can be differentiated with one subspace too
    for one, other in combinations(parts, 2):
        whole = whole + (one.mT @ other).square().sum((1, 2))
    return whole

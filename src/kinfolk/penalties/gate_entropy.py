"""Entropy of the gates of DSelect-k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk import distributed
from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.dselect_k import DSelectK

EPSILON = 1e-6


class GateEntropy(Penalty):
    """Makes the selectors of ``dselect_k`` decide, and keeps them on codes that belong to an expert.

    Per selector with weights p of the experts: ``strength * entropy(p) + reachable * (1 / sum(p) - 1)``, summed
    over selectors and tasks, the mean over rows. The second term is 0 where the number of experts is a power of 2.

    The official code sums over rows, and has no -1, which changes no gradient.

    Parameters
    ----------
    strength
        Of the entropy, at least 0. The default is the official code's.
    reachable
        Of the term for codes without an expert, at least 0. The default is the official code's.

    Raises
    ------
    ValueError
        For a value outside its range, or beside another sharing.

    References
    ----------
    H. Hazimeh et al. (2021). DSelect-k: differentiable selection in the mixture of experts with applications to
    multi-task learning. NeurIPS. Both terms as in the authors' code.
    """

    def __init__(self, strength: float = 1e-6, reachable: float = 1.0) -> None:
        super().__init__()
        if strength < 0 or reachable < 0:
            raise ValueError(f"`strength` and `reachable` must be at least 0. Got {strength} and {reachable}.")
        self.strength, self.reachable = float(strength), float(reachable)

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> GateEntropy:
        """Checks that there are selectors."""
        if not isinstance(model, DSelectK):
            raise ValueError(f"`gate_entropy` belongs to the sharing `dselect_k`. Got {type(model).__name__.lower()}.")
        return self

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """From the selectors of this update's forward pass."""
        if not isinstance(model, DSelectK):
            raise TypeError(f"`gate_entropy` reads a dselect_k network. Got {type(model).__name__}.")
        weights = model.selectors
        each = -self.strength * (weights * (weights + EPSILON).log()).sum(-1)
        if model.experts & (model.experts - 1):
            each = each + self.reachable * (1 / (weights.sum(-1) + EPSILON) - 1)
        return _over_rows(each.sum((1, 3)))


def _over_rows(each: Float[Tensor, "replica row"]) -> Float[Tensor, " replica"]:
    """The mean over the rows of all processes."""
    rows = distributed.total(torch.tensor(float(each.shape[1]), device=each.device))
    return distributed.total(each.sum(1)) / rows

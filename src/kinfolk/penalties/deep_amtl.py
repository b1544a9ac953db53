"""Deep-AMTL: each head is near a sum of the others', and a task pays for being used by its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.quantities import Quantity
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.hard import Hard, common_heads


class DeepAmtl(Penalty):
    """Asymmetric multi-task learning on the last layer: heads are pulled to what tasks that are learned well know.

    To the sum of task losses L_t it adds ``mu sum_t |b_t| L_t + strength sum_t ||w_t - sum_s B_st w_s||^2``, where w_t
    are the weights of task t's head and line b_t of B is what task t gives to the others. B is not negative and its
    diagonal 0: it is the absolute value of a learned matrix. It starts with 1 / T everywhere, as the authors' does.

    Only heads of one size are compared: tasks with as many outputs. The paper has a linear model for each task and
    learns B and weights in turn; here both go down the gradient together.

    Parameters
    ----------
    mu
        Price of giving, not negative.
    strength
        Of the pull, not negative.

    Raises
    ------
    ValueError
        For a negative number, and in ``setup`` for a network in which heads do not read the same features.

    References
    ----------
    G. Lee, E. Yang, S. J. Hwang (2016). Asymmetric multi-task learning based on task relatedness and loss. ICML.

    H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML. There it is a baseline.
    """

    def __init__(self, mu: float | int = 0.1, strength: float | int = 0.01) -> None:
        super().__init__()
        for name, value in {"mu": mu, "strength": strength}.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative. Got {value}.")
        self.mu, self.strength = float(mu), float(strength)

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> DeepAmtl:
        """Every task gives a little to each other one whose head is as large."""
        common_heads(model, "deep_amtl")
        self._names = tuple(task.name for task in tasks)
        sizes = torch.tensor([task.size for task in tasks])
        self.allowed: Tensor
        self.register_buffer("allowed", ((sizes == sizes[:, None]) & ~torch.eye(len(tasks), dtype=torch.bool))[None])
        self.giving = nn.Parameter(torch.full((1, len(tasks), len(tasks)), 1 / len(tasks)))
        return self

    def learned(self) -> Mapping[str, Quantity]:
        """What tasks (lines) give to tasks (columns)."""
        return {"transfer": Quantity(self._given().detach(), self._names, self._names)}

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """All of it but the sum of task losses."""
        given = self._given()
        apart = losses.new_zeros(len(losses))
        groups = cast(Hard, model).heads.groups
        for layer, at in zip(common_heads(model, "deep_amtl"), groups, strict=True):
            weights = layer.weight.view(len(losses), len(at), -1)
            taken = given[:, at][:, :, at].mT @ weights
            apart = apart + (weights - taken).square().sum((1, 2))
        return self.mu * (given.sum(-1) * losses).sum(1) + self.strength * apart

    def _given(self) -> Float[Tensor, "replica task task"]:
        """B."""
        return self.giving.abs() * self.allowed

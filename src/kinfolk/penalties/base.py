"""What a penalty is: a regulariser with its own value for each replica."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.sharing.base import Outputs, Sharing


class Penalty(nn.Module):
    """Added to the balanced losses. Hyper-parameters stand in the constructor; sums over rows go through ``total``."""

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> Penalty:
        """Makes state that depends on the network, and returns the penalty itself."""
        return self

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Called once before training. See :meth:`kinfolk.balancing.base.Balancing.at_start`."""

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Called before each epoch. See :meth:`kinfolk.balancing.base.Balancing.at_epoch`."""

    def learned(self) -> Mapping[str, Quantity]:
        """What it learned, by name: covariances, feedback matrices."""
        return {}

    @abstractmethod
    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """A value per replica, differentiable in whatever it reads."""

"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task


class Uncertainty(Balancing):
    """Learns the noise variance of each task and divides its loss by it.

    With v = log variance a regression task contributes ``exp(-v) L / 2 + v / 2`` and a classification task
    ``exp(-v) L + v / 2``. For constant losses v settles at log L (regression) or log 2L (classification), where
    the sum of log-losses is minimised. The v are parameters of their own, without weight decay.

    Parameters
    ----------
    initial
        Where every v starts. 0, as in the authors' description; some implementations start at -0.5.

    References
    ----------
    A. Kendall, Y. Gal, R. Cipolla (2018). Multi-task learning using uncertainty to weigh losses for scene
    geometry and semantics. CVPR. Equations 7 and 10.

    Examples
    --------
    >>> method = Uncertainty().setup([Task("price", "regression")])
    >>> losses = Losses(torch.tensor([0.25], requires_grad=True) * 1)
    >>> method.backward(losses)
    tensor([0.5000])
    """

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        self.initial = float(initial)

    def setup(self, tasks: Sequence[Task]) -> Uncertainty:
        """One log variance per task."""
        super().setup(tasks)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor([0.5 if task.kind == "regression" else 1.0 for task in tasks]))
        self.log_variance = nn.Parameter(torch.full((len(tasks),), self.initial))
        return self

    def total(self, losses: Losses) -> Tensor:
        """The sum of scaled losses and log terms over the tasks that are present."""
        v, scale = self.log_variance.view_as(losses.value), self.scale.view_as(losses.value)
        return torch.where(losses.seen, scale * losses.value * (-v).exp() + v / 2, 0).sum(-1)

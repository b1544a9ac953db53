"""Dynamic weight average."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task


class Dwa(Balancing):
    """Weighs tasks up whose loss falls slowly: a softmax of how much of each loss an epoch has left.

    With the mean training losses L of the two epochs before, task k of T weighs
    ``T exp(r_k / temperature) / sum_j exp(r_j / temperature)``, ``r = L(t - 1) / L(t - 2)``. In the first two epochs
    all weigh 1. Late in training all r are near 1, and so are the weights. A task without two losses to compare
    weighs 1, and the others divide what is left.

    In a loop of one's own call ``at_epoch(epoch, losses, None)`` before each epoch, with the mean losses of the
    epoch before.

    Parameters
    ----------
    temperature
        How even the weights are, positive. 2 as published.

    Raises
    ------
    ValueError
        If ``temperature`` is not positive.

    References
    ----------
    S. Liu, E. Johns, A. J. Davison (2019). End-to-end multi-task learning with attention. CVPR. Equation 7.

    Examples
    --------
    >>> method = Dwa().setup([Task("price", "regression"), Task("rooms", "regression")])
    >>> for epoch, losses in enumerate([None, torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.5])]):
    ...     method.at_epoch(epoch, losses, None)
    >>> method.backward(Losses(torch.tensor([1.0, 0.5], requires_grad=True) * 1))
    tensor([1.1244, 0.8756])
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = float(temperature)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature` must be positive. Got {temperature}.")

    def setup(self, tasks: Sequence[Task]) -> Dwa:
        """Weights of 1, and no loss yet."""
        super().setup(tasks)
        self.factor: Tensor
        self.before: Tensor
        self.register_buffer("factor", torch.ones(len(tasks)))
        self.register_buffer("before", torch.full((len(tasks),), math.nan))
        return self

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        """Sets the weights of the epoch."""
        if losses is None:
            return
        before = self.before.view_as(losses)
        ratio = losses / before
        known = ratio.isfinite()
        ratio = torch.where(known, ratio / self.temperature, -math.inf)
        factor = known.sum(-1, keepdim=True) * ratio.softmax(-1)
        self.factor.view_as(losses).copy_(torch.where(known, factor, 1))
        before.copy_(torch.where(losses.isnan(), before, losses))

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum over tasks."""
        return (torch.where(losses.seen, self.factor.view_as(losses.value), 0) * losses.value).sum(-1)

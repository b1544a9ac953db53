"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task

FORMS = ("kendall", "plain")


class Uncertainty(Balancing):
    """Learns the noise variance of each task and divides its loss by it.

    With v = log variance a regression task contributes ``exp(-v) L / 2 + v / 2`` and a classification task
    ``exp(-v) L + v / 2``. For constant losses v settles at log L (regression) or log 2L (classification), where
    the sum of log-losses is minimised: the constants change the way there alone. The v are parameters of their
    own, without weight decay. The total may be negative, and a loss that goes to 0 gets a weight without bound.

    Parameters
    ----------
    initial
        Where every v starts. 0, as in the authors' description; some implementations start at -0.5.
    form
        "kendall": the constants above, those of squared error and of cross-entropy. "plain": ``exp(-v) L + v / 2``
        for every task, as "loss over variance plus log of the deviation" is often written.
    speed
        Learning rate of the v as a multiple of the network's, positive. With Adam a v moves about one learning rate in
        an update: losses a thousandfold apart need ``log 1000 = 7`` of way. Some implementations have 0.025 beside a
        learning rate of 1e-4, a ``speed`` of 250.

    Raises
    ------
    ValueError
        For an unknown ``form``, or a ``speed`` that is not positive.

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

    def __init__(self, initial: float = 0.0, form: str = "kendall", speed: float | int = 1.0) -> None:
        super().__init__()
        if not speed > 0:
            raise ValueError(f"`speed` must be positive. Got {speed}.")
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {', '.join(FORMS)}. Got {form!r}.")
        self.initial, self.form, self.speed = float(initial), form, float(speed)

    def setup(self, tasks: Sequence[Task]) -> Uncertainty:
        """One log variance per task."""
        super().setup(tasks)
        self.scale: Tensor
        half = [self.form == "kendall" and task.kind == "regression" for task in tasks]
        self.register_buffer("scale", torch.tensor([0.5 if one else 1.0 for one in half]))
        self.log_variance = nn.Parameter(torch.full((len(tasks),), self.initial))
        return self

    def rates(self) -> Mapping[str, float]:
        """The speed of the variances."""
        return {"log_variance": self.speed}

    def total(self, losses: Losses) -> Tensor:
        """The sum of scaled losses and log terms over the tasks that are present."""
        v, scale = self.log_variance.view_as(losses.value), self.scale.view_as(losses.value)
        return torch.where(losses.seen, scale * losses.value * (-v).exp() + v / 2, 0).sum(-1)

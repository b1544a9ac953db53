"""Fixed weights: the weighted sum of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task


class Fixed(Balancing):
    """The weighted sum of the task losses, with weights that do not change.

    Parameters
    ----------
    weights
        Weight by task name, not negative; tasks that are not named weigh 1.

    Raises
    ------
    ValueError
        For a negative weight, or (at setup) the name of a task that is not there.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ValueError(f"`weights` must not be negative. Got {weight} for {name!r}.")

    def setup(self, tasks: Sequence[Task]) -> Fixed:
        """Orders the weights by task."""
        super().setup(tasks)
        strangers = set(self.weights) - {task.name for task in tasks}
        if strangers and len(tasks) > 1:  # single-task problems see one name of all
            raise ValueError(f"`weights` must name tasks. Got {', '.join(sorted(strangers))}.")
        self.factor: Tensor
        self.register_buffer("factor", torch.tensor([float(self.weights.get(task.name, 1)) for task in tasks]))
        return self

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum over tasks."""
        return (self.factor.view_as(losses.value) * losses.value).sum(-1)

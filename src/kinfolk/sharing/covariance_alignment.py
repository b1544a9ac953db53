"""Covariance alignment: a linear map of the inputs per task before a shared trunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class CovarianceAlignment(Sharing):
    """One trunk that reads each task's inputs through a learned square matrix of the task's own.

    It is for tasks whose inputs have different covariances, such as tasks with rows of their own: there a shared
    trunk may hurt although the tasks are alike. The matrix, ``[input, input]`` over the flattened inputs and without
    a bias, starts as the identity; what is stored and decays is its deviation from that. Tasks go through the trunk
    as rows, so it costs one pass per task, and a batch norm counts the rows of all.

    A map, a linear trunk and a head together can be any linear function of the task's inputs: what the tasks still
    have in common is where training starts, and weight decay. A map that is not held back undoes harm, and help too.

    Parameters
    ----------
    fixed
        The trunk stays as it starts, as in the paper's algorithm; only maps and heads learn. Else all is trained
        together.

    References
    ----------
    S. Wu, H. R. Zhang, C. Ré (2020). Understanding and improving information transfer in multi-task learning. ICLR.
    Algorithm 1.
    """

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed

    def rates(self, phase: int) -> Mapping[str, float]:
        """A fixed trunk rests."""
        return {"trunk": 0.0} if self.fixed else {}

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> CovarianceAlignment:
        """A map per task, one trunk, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        features = math.prod(inputs)
        self.deviations = nn.Parameter(torch.zeros(len(tasks), features, features))
        self.trunk = nn.ModuleList(stages.modules)
        self.heads = Heads(tasks, stages.sizes[-1])
        self._names = tuple(task.name for task in tasks)
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        flat = inputs.flatten(2).unsqueeze(1)
        x = flat + flat @ self.deviations.unflatten(0, (len(inputs), -1))  # [replica, task, row, feature]
        shape = x.shape[1:3]
        x = x.flatten(1, 2).unflatten(2, inputs.shape[2:])
        for stage in self.trunk:
            x = stage(x)
        return cast(Outputs, self.heads(x.flatten(2).unflatten(1, shape).unbind(1)))

    def learned(self) -> Mapping[str, Quantity]:
        """How far the maps of two tasks are apart: 0 are equal ones, 1 the identity and a map to nothing."""
        maps = self.deviations.detach().unflatten(0, (-1, len(self._names))).flatten(2)
        apart = torch.cdist(maps, maps) / math.sqrt(self.deviations.shape[-1])
        return {"distance of alignments": Quantity(apart, self._names, self._names)}

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return last_with_parameters(self.trunk)

"""Hard sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Hard(Sharing):
    """All tasks read the features of one trunk, each by a linear head of its own.

    References
    ----------
    R. Caruana (1997). Multitask learning. Machine Learning 28, 41-75.
    """

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Hard:
        """One trunk, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self.trunk = nn.ModuleList(stages.modules)
        self.heads = Heads(tasks, stages.sizes[-1])
        self._tasks = len(tasks)
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x = inputs
        for stage in self.trunk:
            x = stage(x)
        x = x if x.ndim == 3 else x.flatten(2)
        return cast(Outputs, self.heads([x] * self._tasks))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return next((list(s.parameters()) for s in reversed(self.trunk) if any(True for _ in s.parameters())), [])

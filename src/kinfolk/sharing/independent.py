"""Single-task learning: every task is a problem of its own."""

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


class Independent(Sharing):
    """A network for each task, trained, stopped and judged on the task's own labelled rows.

    This is the single-task arm against which sharing is judged: same trunk, settings and care. Each task is a
    replica of its own, so it equals training the tasks one by one. Auxiliary tasks are not trained.
    """

    def problems(self, tasks: Sequence[Task]) -> list[tuple[int, ...]]:
        """One problem per main task."""
        return [(i,) for i, task in enumerate(tasks) if task.main]

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Independent:
        """A trunk and a head for one task.

        Raises
        ------
        ValueError
            If more than one task is given: these are problems of their own, see :meth:`problems`.
        """
        if len(tasks) != 1:
            raise ValueError(f"`independent` learns one task per problem. Got {len(tasks)} in one.")
        with own("trunk"):
            stages = trunk.build(inputs)
        self.trunk = nn.ModuleList(stages.modules)
        self.heads = Heads(tasks, stages.sizes[-1])
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """The task's output."""
        x = inputs
        for stage in self.trunk:
            x = stage(x)
        return cast(Outputs, self.heads([x if x.ndim == 3 else x.flatten(2)]))

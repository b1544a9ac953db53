"""Hard sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Hard(Sharing):
    """All tasks read the features of one trunk, each by a linear head of its own.

    A task may branch off lower: its head then reads what an earlier stage gives, and later stages are not its
    business (hierarchical supervision). Stages that no task reads are left out.

    Parameters
    ----------
    branch
        The stage after which a task branches off, by name of the task: ``{"edges": 2}`` is after the second
        stage, counted from 1. The other tasks read the last one.

    Raises
    ------
    ValueError
        For a stage below 1, and in ``setup`` for an unknown task or a stage that the trunk does not have.

    References
    ----------
    R. Caruana (1997). Multitask learning. Machine Learning 28, 41-75.

    A. Søgaard, Y. Goldberg (2016). Deep multi-task learning with low level tasks supervised at lower layers. ACL.

    Examples
    --------
    >>> Hard(branch={"edges": 2}).branch
    {'edges': 2}
    """

    def __init__(self, branch: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.branch = dict(branch or {})
        for name, stage in self.branch.items():
            if not isinstance(stage, int) or stage < 1:
                raise ValueError(f"`branch` must name stages from 1 on. Got {stage!r} for the task {name!r}.")

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Hard:
        """One trunk, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self._reads = _stages_read(self.branch, tasks, len(stages.modules))
        self.trunk = nn.ModuleList(stages.modules[: max(self._reads)])
        self.heads = Heads(tasks, [stages.sizes[number - 1] for number in self._reads])
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x, found = inputs, {}
        for number, stage in enumerate(self.trunk, 1):
            x = stage(x)
            if number in self._reads:
                found[number] = x if x.ndim == 3 else x.flatten(2)
        return cast(Outputs, self.heads([found[number] for number in self._reads]))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage that has parameters, before the first task branches off."""
        return last_with_parameters(list(self.trunk)[: min(self._reads)])


def _stages_read(branch: Mapping[str, int], tasks: Sequence[Task], stages: int) -> list[int]:
    """For each task the number of the stage that its head reads, from 1."""
    names = [task.name for task in tasks]
    for name, stage in branch.items():
        if name not in names:
            raise ValueError(f"`branch` must name tasks. Got {name!r}; tasks are {', '.join(map(repr, names))}.")
        if stage > stages:
            raise ValueError(f"`branch` must name one of the trunk's {stages} stages. Got {stage} for {name!r}.")
    return [branch.get(name, stages) for name in names]

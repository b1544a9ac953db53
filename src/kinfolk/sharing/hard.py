"""Hard sharing: one trunk for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Linear


class Hard(Sharing):
    """All tasks read the features of one trunk, each by a linear head of its own.

    A task may branch off lower: its head then reads what an earlier stage gives, and later stages are not its
    business (hierarchical supervision). Stages that no task reads are left out. Or the trunk splits: from a stage on,
    each task has stages of its own.

    Parameters
    ----------
    branch
        The stage after which a task branches off, by name of the task: ``{"edges": 2}`` is after the second
        stage, counted from 1. The other tasks read the last one.
    split
        How many stages are shared; each task has its own of those that follow, which start from draws of its own.
        0 are trunks that share nothing but the rows they see; None shares all stages.
    spread
        Heads start with normal weights of this deviation and biases of 0; None: as torch's layers do.

    Raises
    ------
    ValueError
        For a stage below 1, a ``spread`` that is not positive, a negative ``split``, or one beside ``branch``; in
        ``setup`` for an unknown task or a stage that the trunk does not have.

    References
    ----------
    R. Caruana (1997). Multitask learning. Machine Learning 28, 41-75.

    A. Søgaard, Y. Goldberg (2016). Deep multi-task learning with low level tasks supervised at lower layers. ACL.

    Examples
    --------
    >>> Hard(branch={"edges": 2}).branch
    {'edges': 2}
    """

    def __init__(
        self, branch: Mapping[str, int] | None = None, split: int | None = None, spread: float | None = None
    ) -> None:
        super().__init__()
        if spread is not None and not spread > 0:
            raise ValueError(f"`spread` must be positive, or None. Got {spread}.")
        self.spread = spread
        self.branch, self.split = dict(branch or {}), split
        if split is not None and (split < 0 or self.branch):
            raise ValueError(f"`split` must be at least 0, and stand without `branch`. Got {split}, {self.branch}.")
        for name, stage in self.branch.items():
            if not isinstance(stage, int) or stage < 1:
                raise ValueError(f"`branch` must name stages from 1 on. Got {stage!r} for the task {name!r}.")

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Hard:
        """One trunk, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self.reads = tuple(_stages_read(self.branch, tasks, len(stages.modules)))
        self._shared = min(self.reads) if self.split is None else self.split
        if self._shared > len(stages.modules):
            raise ValueError(f"`split` must be at most the trunk's {len(stages.modules)} stages. Got {self.split}.")
        apart = self.split is not None and self.split < len(stages.modules)
        self.trunk = nn.ModuleList(stages.modules[: self.split if apart else max(self.reads)])
        self.upper = Copies(trunk, inputs, [task.name for task in tasks], self.split or 0) if apart else None
        self.heads = Heads(tasks, [stages.sizes[number - 1] for number in self.reads], self.spread)
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x, found = inputs, {}
        if self.upper is not None:
            for stage in self.trunk:
                x = stage(x)
            return cast(Outputs, self.heads(self.upper(x).unbind(1)))
        for number, stage in enumerate(self.trunk, 1):
            x = stage(x)
            if number in self.reads:
                found[number] = x if x.ndim == 3 else x.flatten(2)
        return cast(Outputs, self.heads([found[number] for number in self.reads]))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage that has parameters, before the trunk splits or the first task branches off."""
        return last_with_parameters(list(self.trunk)[: self._shared])


def common_heads(model: Sharing, asking: str) -> list[Linear]:
    """The heads that all read the same features: layers as in :class:`Heads`, for the penalty that asks.

    Raises
    ------
    ValueError
        If the network is no hard sharing, or tasks branch off at different stages.
    """
    if not isinstance(model, Hard) or len(set(model.reads)) > 1 or model.upper is not None:
        name = type(model).__name__
        said = f"{name} with tasks that branch off" if isinstance(model, Hard) else name
        raise ValueError(f"`{asking}` needs a sharing in which all heads read the same features: hard. Got {said}.")
    return cast(list[Linear], list(model.heads.layers))


def _stages_read(branch: Mapping[str, int], tasks: Sequence[Task], stages: int) -> list[int]:
    """For each task the number of the stage that its head reads, from 1."""
    names = [task.name for task in tasks]
    for name, stage in branch.items():
        if name not in names:
            raise ValueError(f"`branch` must name tasks. Got {name!r}; tasks are {', '.join(map(repr, names))}.")
        if stage > stages:
            raise ValueError(f"`branch` must name one of the trunk's {stages} stages. Got {stage} for {name!r}.")
    return [branch.get(name, stages) for name in names]

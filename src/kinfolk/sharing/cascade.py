"""Cascade: a task reads what others before it said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Cascade(Sharing):
    """Hard sharing in which a task's head also reads the outputs of tasks before it.

    What is fed on is the raw output: the standardised value, or the logits; in training too, so there is no gap
    between labels that were read then and outputs that are read later. The features on which balancing methods
    work are the trunk's.

    Parameters
    ----------
    order
        Names of tasks, each of which reads all before it, or the tasks that each reads: ``{"c": ["a", "b"]}``.
        Tasks that are not named read nothing. Default: all tasks in their order.
    stop
        Keep a task's loss from training the tasks that it reads: no gradient goes through what it reads.

    Raises
    ------
    ValueError
        If tasks read each other in a circle or a name stands twice, and in ``setup`` for an unknown name.

    References
    ----------
    J. Dai, K. He, J. Sun (2016). Instance-aware semantic segmentation via multi-task network cascades. CVPR.

    The idea; what is said there about boxes and masks (warping of regions) has no counterpart here.

    Examples
    --------
    >>> Cascade(order={"price": ["area", "rooms"]}).order
    {'price': ['area', 'rooms']}
    """

    def __init__(self, order: Sequence[str] | Mapping[str, Sequence[str]] | None = None, stop: bool = False) -> None:
        super().__init__()
        self.order, self.stop = order, stop
        _depths(_reads(order))

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Cascade:
        """One trunk, a head per task, and what tasks read of each other."""
        names = [task.name for task in tasks]
        reads = _reads(names if self.order is None else self.order)
        for name in [*reads, *(one for read in reads.values() for one in read)]:
            if name not in names:
                raise ValueError(f"`order` must name tasks. Got {name!r}; tasks are {', '.join(map(repr, names))}.")
        with own("trunk"):
            stages = trunk.build(inputs)
        self.trunk = nn.ModuleList(stages.modules)
        self.heads = Heads(tasks, stages.sizes[-1])
        by_name = {task.name: task for task in tasks}
        levels = [[name for name in level if reads.get(name)] for level in _depths(reads)]
        self.levels = nn.ModuleList(
            [_Level([by_name[n] for n in level], reads, tasks, stages.sizes[-1]) for level in levels if level]
        )
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        x = inputs
        for stage in self.trunk:
            x = stage(x)
        x = x.flatten(2)
        outputs: list[Tensor] = list(self.heads([x] * sum(map(len, self.heads.groups))).tasks)
        for level in self.levels:
            for i, added in level([output.detach() for output in outputs] if self.stop else outputs).items():
                outputs[i] = outputs[i] + added
        return Outputs(outputs, [x] * len(outputs))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return last_with_parameters(self.trunk)


class _Level(nn.Module):
    """What tasks of one depth read: they depend on no other of them, so like ones are one product."""

    def __init__(
        self, level: Sequence[Task], reads: Mapping[str, Sequence[str]], tasks: Sequence[Task], features: int
    ) -> None:
        super().__init__()
        places = {task.name: i for i, task in enumerate(tasks)}
        groups: dict[torch.Size, list[tuple[Task, Tensor]]] = {}
        for task in level:
            blocks = [_block(task, tasks[places[name]], features) for name in reads[task.name]]
            weight = torch.cat(blocks, 1)
            groups.setdefault(weight.shape, []).append((task, weight))
        self._groups = [[places[task.name] for task, _ in group] for group in groups.values()]
        self._read = [[[places[n] for n in reads[task.name]] for task, _ in group] for group in groups.values()]
        self.weights = nn.ParameterList([torch.cat([weight for _, weight in group]) for group in groups.values()])

    def forward(self, outputs: Sequence[Tensor]) -> dict[int, Tensor]:
        """What is added to the outputs of these tasks, by position."""
        found: dict[int, Tensor] = {}
        for weight, at, read in zip(self.weights, self._groups, self._read, strict=True):
            seen = torch.stack([torch.cat([outputs[i] for i in one], -1) for one in read], 1)
            found |= zip(at, (seen @ weight.unflatten(0, (len(seen), -1))).unbind(1), strict=True)
        return found


def _block(task: Task, read: Task, features: int) -> Tensor:
    """How one task reads another, drawn as the head's own weights are."""
    bound = 1 / math.sqrt(max(1, features))
    with own(f"{task.name} reads {read.name}"):
        return torch.empty(1, read.size, task.size).uniform_(-bound, bound)


def _reads(order: Sequence[str] | Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """The tasks that each reads, by name."""
    order = [] if order is None else order
    lists = list(order.values()) if isinstance(order, Mapping) else [order]
    for names in lists:
        if isinstance(names, str):
            raise ValueError(f"`order` must be a list of names, or a list for each task. Got {names!r}.")
        if len(set(names)) < len(names):
            raise ValueError(f"A name must stand once in a list of `order`. Got {list(names)}.")
    if isinstance(order, Mapping):
        return {name: list(read) for name, read in order.items()}
    return {name: list(order[:i]) for i, name in enumerate(order)}


def _depths(reads: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Names by depth: each reads only what stands before its depth."""
    sorter, depths = TopologicalSorter(reads), []
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"Tasks must not read each other in a circle. Got {' -> '.join(error.args[1])}.") from error
    while sorter.is_active():
        depths.append(sorter.get_ready())
        sorter.done(*depths[-1])
    return depths

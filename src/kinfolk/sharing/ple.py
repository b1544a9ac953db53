"""Progressive layered extraction: experts of one task beside experts of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Linear


class Ple(Sharing):
    """Experts of one task beside experts shared by all, mixed by gates level by level.

    At each level a task's gate, a softmax, mixes its own experts and the shared ones, row by row: this is the task's
    state, which its own experts and its gate read at the next level. A shared gate mixes *all* experts: this is what
    the shared experts read at the next level. The gates of the first level read the raw inputs, flattened, and the
    last level has no shared gate. With ``levels=1`` this is customized gate control (CGC).

    An expert of a level is a copy of the trunk's stages that belong to it. No own experts and one shared is hard
    sharing; one own and none shared is trunks apart.

    Popular re-implementations have no shared gate and apply the shared experts to each task's own state; here they
    are the paper's. The paper's gates have no bias, and its heads hidden layers.

    Parameters
    ----------
    experts
        Own experts of each task, at least 0.
    shared
        Shared experts, at least 0; at least one expert in all.
    levels
        Extraction levels, in 1..stages of the trunk, as even parts of it; None for one per stage.

    Raises
    ------
    ValueError
        For a value outside its range.

    References
    ----------
    H. Tang, J. Liu, M. Zhao, X. Gong (2020). Progressive layered extraction (PLE): a novel multi-task learning model
    for personalized recommendations. RecSys.
    """

    def __init__(self, experts: int = 1, shared: int = 1, levels: int | None = None) -> None:
        super().__init__()
        if experts < 0 or shared < 0 or experts + shared < 1:
            raise ValueError(
                f"`experts` and `shared` must be at least 0, and 1 together. Got experts={experts}, shared={shared}."
            )
        if levels is not None and levels < 1:
            raise ValueError(f"`levels` must be at least 1, or None for one per stage. Got {levels}.")
        self.experts, self.shared, self.levels = experts, shared, levels

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Ple:
        """The experts, and per level a gate for each task and a shared one."""
        self._tasks = tuple(task.name for task in tasks)
        of_tasks = [f"expert {i} of {name}" for name in self._tasks for i in range(self.experts)]
        self.own = Copies(trunk, inputs, of_tasks) if of_tasks else None
        self.common = Copies(trunk, inputs, [f"shared expert {i}" for i in range(self.shared)]) if self.shared else None
        shapes = self._split(inputs, cast(Copies, self.own or self.common).shapes)
        sizes = [shape.numel() for shape in shapes]
        mixed = self.experts + self.shared
        self.gates = nn.ModuleList(
            stack([_gate(f"{level} {name}", size, mixed) for name in self._tasks])
            for level, size in enumerate(sizes[:-1])
        )
        whole = len(of_tasks) + self.shared
        self.shared_gates = nn.ModuleList(
            _gate(f"{level}", size, whole) for level, size in enumerate(sizes[:-2] if self.shared else [])
        )
        self.heads = Heads(tasks, sizes[-1])
        self._shapes = shapes
        self._seen: dict[str, Tensor] = {}
        return self

    def _split(self, inputs: torch.Size, shapes: Sequence[torch.Size]) -> list[torch.Size]:
        """Which stages make a level; the shapes of the levels' states, the inputs first."""
        levels = len(shapes) if self.levels is None else self.levels
        if levels > len(shapes):
            raise ValueError(f"`levels` must be in 1..{len(shapes)}, the stages of the trunk. Got {levels}.")
        ends = [len(shapes) * level // levels for level in range(levels + 1)]
        self._stages = [range(a, b) for a, b in pairwise(ends)]
        return [inputs, *(shapes[end - 1] for end in ends[1:])]

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        common = inputs.unsqueeze(1)
        state = common.expand(-1, len(self._tasks), *[-1] * (inputs.ndim - 1))
        for level, gate in enumerate(self.gates):
            mine, ours = self._run(self.own, level, state), self._run(self.common, level, common)
            mine_of_task = mine.unflatten(1, (len(self._tasks), self.experts))
            weights = self._weigh(_of_tasks(level), gate, state)
            if level < len(self.shared_gates):
                shared = self._weigh(_of_all(level), self.shared_gates[level], common)
                common = self._as_state(level, _mix(shared, mine.unsqueeze(1), ours))
            state = self._as_state(level, _mix(weights, mine_of_task, ours))
        return cast(Outputs, self.heads(state.flatten(3).unbind(1)))

    def _run(self, copies: Copies | None, level: int, x: Tensor) -> Float[Tensor, "replica expert row feature"]:
        """What experts make of the states ``[replica, state, row, ...]``, each state read by as many of them."""
        if copies is None:
            return x.new_zeros(len(x), 0, x.shape[2], self._shapes[level + 1].numel())
        each = len(copies) // x.shape[1]
        x = x.unsqueeze(2).expand(-1, -1, each, *x.shape[2:]).flatten(0, 2)
        for i in self._stages[level]:
            x = copies.stages[i](x)
        return copies.apart(x).flatten(3)

    def _weigh(self, name: str, gate: nn.Module, state: Tensor) -> Float[Tensor, "replica state row expert"]:
        weights = gate(state.flatten(3).flatten(0, 1)).softmax(-1).unflatten(0, state.shape[:2])
        self._seen[name] = weights.detach().mean(2)
        return weights

    def _as_state(self, level: int, mixed: Tensor) -> Tensor:
        return mixed.unflatten(-1, self._shapes[level + 1])

    def learned(self) -> Mapping[str, Quantity]:
        """The mean gates of the last forward pass, per level; uniform before it."""
        ours = tuple(f"shared expert {i}" for i in range(self.shared))
        mine = tuple(f"own expert {i}" for i in range(self.experts))
        whole = tuple(f"expert {i} of {name}" for name in self._tasks for i in range(self.experts))
        shown = {_of_tasks(level): (self._tasks, mine + ours) for level in range(len(self.gates))}
        shown |= {_of_all(level): (("shared",), whole + ours) for level in range(len(self.shared_gates))}
        return {name: Quantity(self._gates(name, *named), *named) for name, named in shown.items()}

    def _gates(self, name: str, lines: tuple[str, ...], columns: tuple[str, ...]) -> Tensor:
        replicas = len(cast(Linear, self.gates[0]).weight) // len(self._tasks)
        return self._seen.get(name, torch.full((replicas, len(lines), len(columns)), 1 / len(columns)))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the shared experts that has parameters."""
        return [] if self.common is None else last_with_parameters(self.common.stages)


def _of_tasks(level: int) -> str:
    return f"gates of level {level + 1}"


def _of_all(level: int) -> str:
    return f"shared gate of level {level + 1}"


def _gate(name: str, size: int, experts: int) -> Linear:
    with own(f"gate {name}"):
        return Linear(size, experts)


def _mix(weights: Tensor, mine: Tensor, ours: Tensor) -> Float[Tensor, "replica state row feature"]:
    """Own experts ``[replica, state, expert, row, feature]`` and shared ones ``[replica, expert, row, feature]``."""
    n = mine.shape[2]
    of_state = torch.einsum("rsbe,rsebf->rsbf", weights[..., :n], mine)
    return of_state + torch.einsum("rsbe,rebf->rsbf", weights[..., n:], ours)

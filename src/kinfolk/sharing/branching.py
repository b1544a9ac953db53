"""Fully-adaptive feature sharing: a tree of tasks that grows from the heads down, between phases of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

from kinfolk.data.losses import link
from kinfolk.data.problem import Batch
from kinfolk.data.tasks import Task
from kinfolk.quantities import Quantity
from kinfolk.replicas import tensors
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.copies import Copies
from kinfolk.sharing.grouping import affinity, between, group
from kinfolk.sharing.grouping import somp as somp
from kinfolk.sharing.grouping import thin as thin
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk


class Branching(Sharing):
    """One trunk that splits from the top: tasks that find the same rows difficult stay together.

    The first phase is hard sharing. Before each further phase the branches that meet above the next lower stage are
    grouped by spectral clustering of their affinity, and each group gets a copy of that stage to go on from. A branch
    costs more the lower it begins. Once all are in one group, later phases only train on.

    Parameters
    ----------
    alpha
        Weight of unlike tasks in one branch against the cost of a further branch (1 at the top, doubled at each stage
        below), at least 0. More makes more branches. At 8, two tasks part at the top if they agree on the difficulty
        of fewer than 3/4 of the rows.
    branches
        The most branches at a stage, at least 1; None: as many as tasks. Room for them is held from the start, so
        fewer save memory.
    depth
        How many stages may split, counted from the top, at least 1; None: all. Each is one more phase of training.

    Raises
    ------
    ValueError
        For a value outside its range.

    References
    ----------
    Y. Lu, A. Kumar, S. Zhai, Y. Cheng, T. Javidi, R. Feris (2017). Fully-adaptive feature sharing in multi-task
    networks with applications in person attribute classification. CVPR.

    Notes
    -----
    Where it differs from the paper: every stage with parameters counts as one pooling layer in the cost of a branch.
    Margins are taken for all kinds of tasks (label minus probability, residual, 1 minus the probability of the class),
    on rows that did not train. The trunk starts at its own width; :func:`somp` and :func:`thin` choose the units of
    thin layers from trained wide ones, for a trunk made of modules.
    """

    spare = True

    def __init__(self, alpha: float | int = 8.0, branches: int | None = None, depth: int | None = None) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"`alpha` must be at least 0. Got {alpha}.")
        for name, value in (("branches", branches), ("depth", depth)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, or None. Got {value}.")
        self.alpha, self.branches, self.depth = float(alpha), branches, depth

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Branching:
        """Room for every branch of every stage; all tasks use the first.

        Raises
        ------
        ValueError
            If the trunk has fewer stages with parameters than ``depth``.
        """
        self.trunk = Copies(trunk, inputs, [""] * min(len(tasks), self.branches or len(tasks)))
        self.heads = Heads(tasks, math.prod(self.trunk.shapes[-1]))
        self._tasks = tuple(tasks)
        # A stage without parameters, such as an activation, belongs to the one below it.
        self._levels = [i for i, stage in enumerate(self.trunk.stages) if any(True for _ in stage.parameters())]
        if self.depth is not None and self.depth > len(self._levels):
            raise ValueError(f"`depth` must be at most the trunk's {len(self._levels)} stages. Got {self.depth}.")
        self.phases = 1 + (self.depth or len(self._levels)) * (len(self.trunk) > 1)
        self.used: Tensor
        self.phase: Tensor
        self.register_buffer("used", torch.zeros(1, len(self.trunk.stages), len(tasks), dtype=torch.int64))
        self.register_buffer("phase", torch.zeros((), dtype=torch.int64))
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task; only branches that some replica uses are computed.

        An exported network cannot look at the tree while it is traced: it computes all that there is room for.
        """
        x, below = inputs.unsqueeze(1), torch.zeros_like(self.used[:, 0])
        for stage, branch in zip(self.trunk.stages, self.used.unbind(1), strict=True):
            count = branch.amax(1) + 1
            x = self._computed(stage, _fed(x, branch, below, self._width(count)), count)
            below = branch
        return cast(Outputs, self.heads(_shared_out(x.flatten(3), below)))

    def _width(self, count: Tensor) -> int:
        """How many copies of a stage to compute for replicas that use so many."""
        return len(self.trunk) if torch.compiler.is_compiling() else int(count.max())

    def _computed(self, stage: nn.Module, x: Tensor, count: Tensor) -> Tensor:
        """A stage's first copies, as many as ``x`` [replica, branch, row, ...] has; each replica uses ``count``."""
        lead = x.shape[:2]
        part = lambda t: t.unflatten(0, (lead[0], -1))[:, : lead[1]]  # noqa: E731
        held = {name: part(t).flatten(0, 1).contiguous() for name, t in tensors(stage)}
        state = {name: buffer for name, buffer in stage.named_buffers() if buffer.ndim and self.training}
        held |= {name: held[name].clone() for name in state}
        y = functional_call(stage, held, (x.flatten(0, 1),)).unflatten(0, lead)
        own = torch.arange(lead[1], device=x.device) < count.unsqueeze(1)
        for name, buffer in state.items():  # what the stage counts goes back, but not where no task asked for it
            part(buffer)[own] = held[name].unflatten(0, lead)[own]
        return y

    @torch.no_grad()
    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """Groups the branches above the next lower stage, and gives each group a copy of it."""
        self.phase.fill_(phase)
        level = len(self._levels) - phase
        stages = slice(self._levels[level], [*self._levels, len(self.trunk.stages)][level + 1])
        heads = torch.arange(len(self._tasks), device=self.used.device).expand(len(self.used), -1)
        above = (heads if phase == 1 else self.used[:, stages.stop]).cpu().numpy()
        margins, observed = _margins(self._tasks, outputs, batch).cpu().numpy(), (batch.weight > 0).cpu().numpy()
        for i, branch in enumerate(above):
            related = between(affinity(margins[i], observed[i]), branch)
            groups = group(related, 2 ** (phase - 1), self.alpha, len(self.trunk))
            self.used[i, stages] = torch.from_numpy(groups[branch]).to(self.used)
            for _, t in tensors(self.trunk.stages[stages]):
                copies = t.data.unflatten(0, (len(above), -1))[i]
                copies[1 : groups.max() + 1] = copies[0].clone()

    def learned(self) -> Mapping[str, Quantity]:
        """Which branch each task uses, stage by stage."""
        lines, columns = (
            tuple(task.name for task in self._tasks),
            tuple(f"branch {i}" for i in range(len(self.trunk))),
        )
        member = one_hot(self.used, len(columns)).to(torch.get_default_dtype())
        return {f"branches at stage {i}": Quantity(member[:, i].contiguous(), lines, columns) for i in self._levels}

    def last_shared(self) -> list[nn.Parameter]:
        """The highest stage that cannot have split yet. In the end, the lowest: each task then has a copy of it."""
        level = max(0, len(self._levels) - 1 - int(self.phase))
        return list(self.trunk.stages[self._levels[level]].parameters()) if self._levels else []


def _fed(x: Tensor, branch: Tensor, below: Tensor, width: int) -> Tensor:
    """What each branch of a stage reads: the outputs of the branch below that its tasks use.

    Surplus branches, which a replica with fewer does not use, read anything.
    """
    if x.shape[1] == 1:
        return x.expand(-1, width, *x.shape[2:])
    itself = torch.arange(width, device=x.device).clamp(max=x.shape[1] - 1).repeat(len(x), 1)
    parents = itself.scatter(1, branch, below)
    if width == x.shape[1] and not torch.compiler.is_compiling() and torch.equal(parents, itself):
        return x
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), parents]


def _shared_out(x: Tensor, branch: Tensor) -> list[Tensor]:
    """Each task's features from ``[replica, branch, row, feature]``; one tensor where all replicas share."""
    replicas = torch.arange(len(x), device=x.device)
    if torch.compiler.is_compiling():
        return [x[replicas, column] for column in branch.unbind(1)]
    found: dict[tuple[int, ...], Tensor] = {}
    columns = [tuple(column) for column in branch.T.tolist()]
    for at, column in zip(columns, branch.unbind(1), strict=True):
        if at not in found:
            found[at] = x[:, at[0]] if len(set(at)) == 1 else x[replicas, column]
    return [found[at] for at in columns]


def _margins(tasks: Sequence[Task], outputs: Outputs, batch: Batch) -> Tensor:
    """How far each prediction is from its label, ``[replica, row, task]``."""
    found = []
    for task, output, target in zip(tasks, outputs.tasks, batch.targets, strict=True):
        predicted = link(task.kind, output)
        if task.kind == "multiclass":
            found.append(1 - predicted.gather(-1, target.long().unsqueeze(-1)).squeeze(-1))
        else:
            found.append((predicted - target.view_as(predicted)).abs().mean(-1))
    return torch.stack(found, -1)

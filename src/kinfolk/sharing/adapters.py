"""Adapters: small layers of a task's own inside a shared trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk.data.problem import Batch
from kinfolk.data.tasks import Task
from kinfolk.replicas import own, stack
from kinfolk.sharing.base import Outputs, Sharing, last_with_parameters
from kinfolk.sharing.heads import Heads
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Pointwise

SPREAD = 1e-2  # deviation of the initial weights, cut at two deviations


class Adapters(Sharing):
    """One trunk, and after each of its stages a bottleneck per task with a shortcut around it.

    An adapter maps d features (of images: channels, pixel by pixel) to a few, applies a GELU, maps them back to d
    and adds that to what came in. It starts near zero, so that training starts near hard sharing. The trunk's
    parameters serve all tasks. It runs once for all of them up to the first adapter; from there on each task has
    features of its own, which go through it as rows, so a batch norm counts the rows of all tasks.

    Parameters
    ----------
    size
        Features inside the bottleneck, at least 1.
    frozen
        Train in two phases: hard sharing without adapters, then adapters and heads on the trunk as it was best. It
        computes as in prediction then: its numbers rest, its batch norms use what they have counted, and it drops
        nothing out.

    Raises
    ------
    ValueError
        If `size` is below 1.

    References
    ----------
    N. Houlsby, A. Giurgiu, S. Jastrzebski, B. Morrone, Q. de Laroussilhe, A. Gesmundo, M. Attariyan, S. Gelly (2019).
    Parameter-efficient transfer learning for NLP. ICML. Section 2.

    There a layer of a transformer has two adapters and trained layer norms; here a stage of any kind has one.
    """

    def __init__(self, size: int = 8, frozen: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"`size` of adapters must be at least 1. Got {size}.")
        self.size, self.frozen = size, frozen
        self.phases = 2 if frozen else 1

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Adapters:
        """One trunk, an adapter per stage and task, a head per task."""
        with own("trunk"):
            stages = trunk.build(inputs)
        self.trunk = nn.ModuleList(stages.modules)
        self.adapters = nn.ModuleList()
        for number, shape in enumerate(stages.shapes):
            self.adapters.append(stack([_adapter(task, number, shape[0], self.size) for task in tasks]))
        self.heads = Heads(tasks, stages.sizes[-1])
        self._tasks = len(tasks)
        self.awake: Tensor
        self.register_buffer("awake", torch.full((1,), not self.frozen))
        return self

    def rates(self, phase: int) -> Mapping[str, float]:
        """With a frozen trunk, the adapters rest first, then the trunk does."""
        if not self.frozen:
            return {}
        return {"trunk": 0.0} if phase else {"adapters": 0.0}

    def at_phase(self, phase: int, outputs: Outputs, batch: Batch) -> None:
        """Wakes the adapters."""
        self.awake.fill_(True)

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        """One output per task."""
        if self.frozen and self.training:
            if not bool(self.awake.any()):  # one pass for all tasks
                return self._shared(inputs)
            self.trunk.eval()
        on = self.awake.repeat_interleave(self._tasks) if self.frozen else None
        x = inputs.unsqueeze(1)  # [replica, task, row, ...]; 1 task as long as all are alike
        for stage, adapter in zip(self.trunk, self.adapters, strict=True):
            x = stage(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
            x = x.expand(-1, self._tasks, *x.shape[2:])
            x = adapter(x.flatten(0, 1), on).unflatten(0, x.shape[:2])
        return cast(Outputs, self.heads(x.flatten(3).unbind(1)))

    def _shared(self, x: Tensor) -> Outputs:
        for stage in self.trunk:
            x = stage(x)
        return cast(Outputs, self.heads([x.flatten(2)] * self._tasks))

    def last_shared(self) -> list[nn.Parameter]:
        """The last stage of the trunk that has parameters."""
        return last_with_parameters(self.trunk)


class Adapter(nn.Module):
    """``x + up(gelu(down(x)))`` over the features or channels, for each copy.

    Parameters
    ----------
    features, size
        Features outside and inside.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.down, self.up = Pointwise(features, size), Pointwise(size, features)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, on: Tensor | None = None) -> Tensor:
        """``[copy, row, features, ...]`` of the same shape; `on` tells by copy whether anything is added."""
        added = self.up(F.gelu(self.down(x)))
        return x + added if on is None else x + added * on.view(-1, *[1] * (x.ndim - 1))


def _adapter(task: Task, stage: int, features: int, size: int) -> Adapter:
    with own(f"adapter {stage} {task.name}"):
        return Adapter(features, size)
